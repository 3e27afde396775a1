"""The options and the course that the commands which make ReMoE models share."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from transformers.utils import logging

# Active experts that routers are fitted to before they are tuned, as a multiple of k: a fit with more is
# much nearer to the source model, and tuning takes them away where they matter least.
FIT_SHARE = 1.5
LONGEST_DEFAULT = 512  # tokens of a sequence


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
    add(
        "--sequence-length",
        type=int,
        help="(default: 512, or what the model was trained on if less)",
    )


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Source, output and what the new model starts from."""
    add = parser.add_argument
    add("model", type=Path, help="Hugging Face folder")
    add("--output", type=Path, required=True, help="a new folder")
    add(
        "--active-experts",
        type=float,
        metavar="A",
        help="fit routers to A active experts a token, and do not tune: more than k is nearer to the "
        "source model, and training brings them down to k",
    )
    add(
        "--tune-steps",
        type=int,
        default=300,
        metavar="N",
        help="train the routers alone, by loss and controller, for N steps of 2048 tokens "
        "(default: %(default)s)",
    )
    add_text_options(parser)


def check_numbers(words: argparse.Namespace) -> None:
    """Refuse sizes that cannot be.

    Raises:
        ValueError: Naming the option and the mend.
    """
    for flag, value in (("--tokens", words.tokens), ("--sequence-length", words.sequence_length)):
        if value is not None and value < 2:
            raise ValueError(f"{flag} {value}: give at least 2")
    if getattr(words, "tune_steps", 0) < 0:
        raise ValueError(f"--tune-steps {words.tune_steps}: give 0 or more")


def sequence_length(words: argparse.Namespace, model) -> int:
    """Tokens of a sequence: what is asked for, or what the model takes.

    Raises:
        ValueError: If it is more than the model was trained on.
    """
    longest = model.config.max_position_embeddings
    if words.sequence_length is None:
        return min(LONGEST_DEFAULT, longest)
    if words.sequence_length > longest:
        raise ValueError(
            f"--sequence-length {words.sequence_length}: the model was trained on {longest} at most"
        )
    return words.sequence_length


def check_active(active: float, num_experts: int) -> None:
    """Refuse a number of active experts that no model of so many experts has.

    Raises:
        ValueError: Naming the range.
    """
    if not 0 < active <= num_experts:
        raise ValueError(
            f"--active-experts {active:g}: give a number above 0 and up to the {num_experts} experts"
        )


def steps_and_active(words: argparse.Namespace, topk: int, num_experts: int) -> tuple[int, float]:
    """How long to tune the routers, and how many active experts to fit them to before.

    Raises:
        ValueError: If that number cannot be.
    """
    if words.active_experts is not None:
        check_active(words.active_experts, num_experts)
        return 0, words.active_experts
    fitted = FIT_SHARE * topk if words.tune_steps else topk
    return words.tune_steps, min(fitted, num_experts)


def run(name: str, command: Callable[[], None]) -> int:
    """Run a command; what the user can mend is one line and no traceback.

    Returns:
        The exit status: 0, 1 after an error, 130 after Ctrl-C.
    """
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        command()
    except (ValueError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr, flush=True)
        return 130
    return 0
