"""The tokenizers inside a worker: a list of texts in, the ids of each text out."""

import argparse
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from data.quiet import quiet_imports
from data.words import WordIds, added_tokens

Encoder = Callable[[list[str]], Sequence[Sequence[int] | np.ndarray]]


def words_encoder(state: dict[str, Any]) -> Encoder:
    """Remembers the ids of words, for tokenizers of which ``has_gpt2_words`` is true.

    Args:
        state: as for ``tokenizers_encoder``.
    """
    library = tokenizers_encoder(state)
    words = WordIds(lambda word: library([word])[0])
    added = added_tokens(state["json"])

    def encode(text: str) -> Sequence[int] | np.ndarray:
        if any(token in text for token in added):
            return library([text])[0]
        return words.encode(text)

    return lambda texts: [encode(text) for text in texts]


def tokenizers_encoder(state: dict[str, Any]) -> Encoder:
    """Rebuilds the Rust tokenizer that a Hugging Face tokenizer wraps.

    Args:
        state: ``json``, ``add_special_tokens`` and ``encode_special_tokens`` of that tokenizer.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # --workers says how many cores we may use
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(state["json"])
    tokenizer.encode_special_tokens = state["encode_special_tokens"]
    tokenizer.no_truncation()
    tokenizer.no_padding()
    add_special_tokens = state["add_special_tokens"]

    def encode(texts: list[str]) -> list[list[int]]:
        # _fast leaves out the offsets of each token, which nobody asks for
        encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=add_special_tokens)
        return [encoding.ids for encoding in encodings]

    return encode


def sentencepiece_encoder(path: str) -> Encoder:
    """Loads a SentencePiece model.

    Args:
        path: the ``.model`` file.
    """
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_file=path)
    return lambda texts: processor.encode(texts, out_type=int, num_threads=1)


def megatron_encoder(arguments: argparse.Namespace) -> Encoder:
    """Builds Megatron's tokenizer itself: slow to import and slow to run, but right for every type.

    Args:
        arguments: what ``build_tokenizer`` reads.
    """
    with quiet_imports():
        from megatron.core.tokenizers.utils.build_tokenizer import build_tokenizer

        tokenizer = build_tokenizer(arguments)
    return lambda texts: [list(tokenizer.tokenize(text)) for text in texts]


ENCODERS: dict[str, Callable[[Any], Encoder]] = {
    "words": words_encoder,
    "tokenizers": tokenizers_encoder,
    "sentencepiece": sentencepiece_encoder,
    "megatron": megatron_encoder,
}
