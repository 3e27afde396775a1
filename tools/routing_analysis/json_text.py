"""Calibration text from JSON-lines files, one a domain."""

from pathlib import Path

import numpy as np

from evaluation.domains import find_domains, read_texts
from evaluation.errors import EvaluationError
from routing_analysis.calibration import TokenStream

_FLAG = "--text"
# Of a long file this many times the wanted tokens are read, to spread the sequences over.
_READ_AHEAD = 8


def streams_of_files(paths: list[Path], tokenizer: object, num_tokens: int) -> list[TokenStream]:
    """The domains of files, and of folders of files.

    Args:
        paths: As `--domains` of tools/evaluate.py takes them.
        tokenizer: Of transformers; its end of a text, if it has one, stands after each document.
        num_tokens: Wanted of all domains together.

    Raises:
        EvaluationError: If a file is missing, is no text, or two are of one name.
    """
    files: dict[str, Path] = {}
    for path in paths:
        if not path.exists():
            raise EvaluationError(f"{_FLAG} {path}: no such file or folder")
        for name, file in find_domains(path, _FLAG).items():
            if name in files:
                raise EvaluationError(f"{_FLAG} {file}: domain {name} is {files[name]} already")
            files[name] = file
    most = _READ_AHEAD * num_tokens // len(files)
    return [_stream(name, file, tokenizer, most) for name, file in files.items()]


def _stream(name: str, path: Path, tokenizer: object, most: int) -> TokenStream:
    ids: list[int] = []
    for text in read_texts(path, flag=_FLAG):
        ids += tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        if tokenizer.eos_token_id is not None:
            ids.append(tokenizer.eos_token_id)
        if len(ids) >= most:
            break
    tokens = np.array(ids, np.int64)
    return TokenStream(name, len(tokens), lambda start, count: tokens[start : start + count])
