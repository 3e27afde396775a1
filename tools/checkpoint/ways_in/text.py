"""Sequences of tokens from a file of text: some to calibrate on, others to measure on."""

import json
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

EVAL_EVERY = 4  # of the sequences one is kept for measuring: 25%


class Sequences(NamedTuple):
    """Token ids ``[num_sequences, sequence_length]``, int64.

    Attributes:
        calibration: Where routers are fitted, thresholds found.
        evaluation: Where losses are measured; none of them is in `calibration`.
    """

    calibration: Tensor
    evaluation: Tensor


def read_sequences(path: Path, tokenizer, num_tokens: int, sequence_length: int) -> Sequences:
    """Read text and cut it into sequences.

    Args:
        path: JSON lines with a `text` each (.jsonl), or plain text.
        tokenizer: Of transformers. Its end of a text, if it has one, stands between documents.
        num_tokens: To calibrate on at most; a third as many are kept for measuring.
        sequence_length: Tokens of one sequence.

    Raises:
        ValueError: If the file is missing, is no text, or has too little of it.
    """
    wanted = num_tokens * EVAL_EVERY // (EVAL_EVERY - 1)
    ids: list[int] = []
    for document in _documents(path):
        ids += tokenizer(document, verbose=False).input_ids
        if tokenizer.eos_token_id is not None:
            ids.append(tokenizer.eos_token_id)
        if len(ids) >= wanted:
            break
    num_sequences = min(len(ids), wanted) // sequence_length
    if num_sequences < EVAL_EVERY:
        raise ValueError(
            f"--text {path}: has {len(ids)} tokens, and {EVAL_EVERY} sequences of {sequence_length} "
            "are the least: give more text, or a smaller --sequence-length"
        )
    sequences = torch.tensor(ids[: num_sequences * sequence_length]).view(-1, sequence_length)
    is_kept = torch.arange(num_sequences) % EVAL_EVERY == EVAL_EVERY - 1
    return Sequences(sequences[~is_kept], sequences[is_kept])


def _documents(path: Path):
    try:
        if path.suffix != ".jsonl":
            yield path.read_text(encoding="utf-8")
            return
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                yield _text_of(line, f"--text {path}:{number}")
    except OSError as error:
        raise ValueError(f"--text {path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"--text {path}: is not UTF-8 text") from error


def _text_of(line: str, where: str) -> str:
    try:
        text = json.loads(line)["text"]
    except (ValueError, KeyError, TypeError):
        text = None
    if not isinstance(text, str):
        raise ValueError(f'{where}: is not a JSON object with a string "text"')
    return text
