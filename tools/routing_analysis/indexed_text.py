"""Calibration text from the indexed data that a run was validated on."""

from argparse import Namespace
from pathlib import Path

import numpy as np

from evaluation.errors import EvaluationError
from routing_analysis.calibration import TokenStream

_ASK = "give JSON-lines files by --text, one a domain"


def streams_of_run(args: Namespace, folder: Path) -> list[TokenStream]:
    """The validation text of a run, a domain for each data set of its blend.

    Args:
        args: That the run stored.
        folder: Of the run; relative paths are looked for here and in the folders above it, too.

    Raises:
        EvaluationError: If the run had none, or it is not here.
    """
    from megatron.training.utils import get_blend_and_blend_per_split

    from megatron.remoe.recording.domains import domain_names

    try:
        blend, per_split = get_blend_and_blend_per_split(args)
    except (
        AttributeError,
        OSError,
    ) as error:  # of another version; lists in files that are not here
        raise EvaluationError(
            f"{folder}: its run's data is not known here ({error}): {_ASK}"
        ) from error
    split = args.split if blend else None
    blend = blend or (per_split and per_split[1])
    if not blend:
        raise EvaluationError(f"{folder}: its run names no data to validate on: {_ASK}")
    prefixes = [_find(prefix, folder) for prefix in blend[0]]
    names = domain_names(args, "valid")
    streams = [_stream(*pair, split) for pair in zip(names, prefixes, strict=True)]
    if empty := [stream.name for stream in streams if not stream.length]:
        raise EvaluationError(
            f"{folder}: --split {split} left no validation text of {empty[0]}: {_ASK}"
        )
    return streams


def find_beside(path: str, folder: Path, ending: str = "") -> Path | None:
    """A path as a run named it: from here, from the run's folder, or from one above it."""
    roots = [Path(), *folder.resolve().parents, folder.resolve()]
    places = (root / path for root in roots)
    return next((place for place in places if Path(f"{place}{ending}").exists()), None)


def _find(prefix: str, folder: Path) -> Path:
    place = find_beside(prefix, folder, ".idx")
    if place is None:
        raise EvaluationError(f"{folder}: its run's data {prefix}.idx is not here: {_ASK}")
    return place


def _stream(name: str, prefix: Path, split: str | None) -> TokenStream:
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    try:
        dataset = IndexedDataset(str(prefix))
    except (OSError, AssertionError, ValueError) as error:
        raise EvaluationError(f"{prefix}: the indexed data cannot be read ({error})") from error
    first, end = _validation_part(split, len(dataset.sequence_lengths))
    ends = np.cumsum(dataset.sequence_lengths[first:end], dtype=np.int64)

    def read(start: int, count: int) -> np.ndarray:
        parts = []
        document = int(np.searchsorted(ends, start, side="right"))
        offset = start - (int(ends[document - 1]) if document else 0)
        while count:
            part = dataset.get(first + document, offset)[:count]
            parts.append(part)
            count -= len(part)
            document, offset = document + 1, 0
        return np.concatenate(parts)

    return TokenStream(name, int(ends[-1]) if len(ends) else 0, read)


def _validation_part(split: str | None, num_documents: int) -> tuple[int, int]:
    """First document and the one after the last, as Megatron's builder of data sets cuts them."""
    if split is None:
        return 0, num_documents
    from megatron.core.datasets.blended_megatron_dataset_config import (
        convert_split_vector_to_split_matrix,
        parse_and_normalize_split,
    )

    part = convert_split_vector_to_split_matrix(parse_and_normalize_split(split))[1]
    return (0, 0) if part is None else tuple(round(end * num_documents) for end in part)
