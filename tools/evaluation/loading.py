"""The flags that say how a model is loaded, which all tools share."""

import argparse
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Loading:
    """How models are loaded.

    Attributes:
        dtype: Name of torch's; None leaves what the weights have.
        device: Of torch; None is the first GPU, else the CPU.
        tokenizer: Folder that stands for the model's own.
        trust_remote_code: Whether code beside the weights may run.
    """

    dtype: str | None = None
    device: str | None = None
    tokenizer: Path | None = None
    trust_remote_code: bool = False


def add_loading_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `Loading`."""
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="of the weights (default: as stored)",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: a GPU if there is one)")
    parser.add_argument(
        "--tokenizer", type=Path, metavar="DIR", help="instead of the one that the model names"
    )
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="let code in a model's folder run"
    )


def loading_of(args: argparse.Namespace) -> Loading:
    """What the flags ask for."""
    return Loading(args.dtype, args.device, args.tokenizer, args.trust_remote_code)
