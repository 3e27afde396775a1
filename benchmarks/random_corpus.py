"""Ids that all sides train on, random but not without use, in Megatron's indexed form."""

from pathlib import Path

import numpy as np

DOCUMENT = 500  # ids


def write_corpus(prefix: Path, vocabulary: int, num_tokens: int, seed: int = 0) -> None:
    """Write `num_tokens` ids, rounded up to whole documents.

    Half of them follow from the one before, by a table; the others are id i with a share ~ 1 / (i + 1).
    Without anything to learn experts would be of no use, and ReLU routing closes those. Megatron's
    mock data will not do: its sequences count upwards, so that a step's tokens are alike, and with
    them how many experts are active.

    Args:
        prefix: Path without ".bin" and ".idx".
        vocabulary: Up to 65,536.
        num_tokens: To write.
        seed: Of the random numbers.
    """
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    shares = 1 / np.arange(1, vocabulary + 1)
    generator = np.random.default_rng(seed)
    documents = -(-num_tokens // DOCUMENT)
    ids = generator.choice(vocabulary, (documents, DOCUMENT), p=shares / shares.sum())
    table, follows = generator.permutation(vocabulary), generator.random(ids.shape) < 0.5
    for place in range(1, DOCUMENT):
        before = table[ids[:, place - 1]]
        ids[:, place] = np.where(follows[:, place], before, ids[:, place])
    builder = IndexedDatasetBuilder(f"{prefix}.bin", np.uint16)
    for document in ids.astype(np.uint16):
        builder.add_document(document, [DOCUMENT])
    builder.finalize(f"{prefix}.idx")


def read_batches(prefix: Path, sequences: int, length: int) -> np.ndarray:
    """The same ids as ``[num_batches, sequences, length]`` int64; what fills no batch is left out."""
    ids = np.fromfile(f"{prefix}.bin", np.uint16).astype(np.int64)
    size = sequences * length
    return ids[: len(ids) // size * size].reshape(-1, sequences, length)
