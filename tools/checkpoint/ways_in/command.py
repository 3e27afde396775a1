"""The options and the course that the commands which make ReMoE models share."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from transformers.utils import logging

# Of a model that starts sparse: it reaches what holds sparsity within some tens of steps of alpha 1.2,
# and is too small to drive the fitted gates down before (experiments/ways_in).
REG_COEFF_INIT = 1e-3


def add_text_options(parser: argparse.ArgumentParser) -> None:
    """The text and how much of it."""
    add = parser.add_argument
    add(
        "--text", type=Path, required=True, help="to calibrate and measure on: .jsonl or plain text"
    )
    add(
        "--tokens",
        type=int,
        default=65536,
        help="to calibrate on; takes 4 bytes x hidden size x layers each (default: %(default)s)",
    )
    add("--sequence-length", type=int, default=512, help="(default: %(default)s)")


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Source, output and what the new model starts from."""
    add = parser.add_argument
    add("model", type=Path, help="Hugging Face folder")
    add("--output", type=Path, required=True, help="a new folder")
    add(
        "--active-experts",
        type=float,
        metavar="A",
        help="mean active experts a token to start from; default k. More is nearer to the source model, "
        "and training brings them down to k",
    )
    add(
        "--reg-coeff-init",
        type=float,
        default=REG_COEFF_INIT,
        metavar="LAMBDA",
        help="lambda that training starts from (default: %(default)s)",
    )
    add_text_options(parser)


def check_numbers(words: argparse.Namespace) -> None:
    """Refuse sizes that cannot be.

    Raises:
        ValueError: Naming the option and the mend.
    """
    for flag, value in (("--tokens", words.tokens), ("--sequence-length", words.sequence_length)):
        if value < 2:
            raise ValueError(f"{flag} {value}: give at least 2")
    coeff = getattr(words, "reg_coeff_init", 1.0)
    if not 0 < coeff < float("inf"):
        raise ValueError(f"--reg-coeff-init {coeff:g}: give a number above 0")


def check_active(active: float, num_experts: int) -> None:
    """Refuse a number of active experts that no model of so many experts has.

    Raises:
        ValueError: Naming the range.
    """
    if not 0 < active <= num_experts:
        raise ValueError(
            f"--active-experts {active:g}: give a number above 0 and up to the {num_experts} experts"
        )


def run(name: str, command: Callable[[], None]) -> int:
    """Run a command; what the user can mend is one line and no traceback.

    Returns:
        The exit status: 0, or 1 after an error.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        command()
    except ValueError as error:
        print(f"{name}: {error}", file=sys.stderr, flush=True)
        return 1
    return 0
