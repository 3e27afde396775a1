"""Prompts from the command line, from files, from a pipe or from a person."""

import sys
from collections.abc import Iterator
from pathlib import Path

from evaluation.errors import EvaluationError

_MARK = "> "


def read_prompts(given: list[str], files: list[Path]) -> list[str]:
    """Prompts of the command line, then those of the files, each a whole file.

    Raises:
        EvaluationError: A file cannot be read.
    """
    prompts = list(given)
    for path in files:
        try:
            # An editor's newline at the end is no part of the prompt.
            prompts.append(path.read_text(encoding="utf-8").removesuffix("\n"))
        except (OSError, UnicodeDecodeError) as error:
            raise EvaluationError(f"--prompt-file {path}: cannot be read ({error})") from error
    return prompts


def ask() -> Iterator[str]:
    """Prompts from standard input: one a line of a pipe, or what a person types until Ctrl-D."""
    if not sys.stdin.isatty():
        for line in sys.stdin:
            yield line.removesuffix("\n")
        return
    import readline  # noqa: F401  gives input() a history and its keys

    while True:
        try:
            line = input(_MARK)
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if line:
            yield line
