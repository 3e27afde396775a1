"""What a conversion is asked to do."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from megatron.remoe.conversion.architecture import ConversionError
from megatron.remoe.conversion.check import TOLERANCE

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@dataclass(frozen=True)
class Options:
    """What to convert and where to; each is a flag of `tools/checkpoint/convert.py`.

    Attributes:
        input: What `--load` names or an iteration's folder; or a Hugging Face folder.
        output: A folder that is not there, or empty.
        ckpt_step: Iteration of Megatron's; None: what the tracker file names.
        tokenizer: Folder of the tokenizer; None: the model's own.
        dtype: Of the weights that are written; None: as they are.
        max_shard_size: Bytes of a file.
        text: For the check; None: English prose of the standard library.
        tolerance: Of a logit in fp32.
        transformer_impl: Whose names Megatron's form has; None: as the model had them, else `local`.
        divisible_by: Of Megatron's padded vocabulary; None: as the model had it, else 128.
        quiet: Neither a progress bar nor a word.

    Raises:
        ConversionError: For a number that cannot be, or an output within the input.
    """

    input: Path
    output: Path
    ckpt_step: int | None = None
    tokenizer: Path | None = None
    dtype: torch.dtype | None = None
    max_shard_size: int = 5 * 10**9
    text: Path | None = None
    tolerance: float = TOLERANCE
    transformer_impl: str | None = None
    divisible_by: int | None = None
    quiet: bool = False

    def __post_init__(self) -> None:
        if self.input.resolve() in self.output.resolve().parents:
            raise ConversionError(
                f"--output {self.output}: is in {self.input}: name another folder"
            )
        if not 0 < self.tolerance < float("inf"):
            raise ConversionError(f"--tolerance {self.tolerance:g}: give a number above 0")
        if self.divisible_by is not None and self.divisible_by < 1:
            raise ConversionError(
                f"--make-vocab-size-divisible-by {self.divisible_by}: give a whole number of at least 1"
            )

    def task(self, fingerprint: str, dtype: torch.dtype) -> dict:
        """Everything that the files of the output depend on, for json.

        Args:
            fingerprint: Of the input's files.
            dtype: Of the weights that are written.
        """
        names = ("input", "tokenizer", "max_shard_size", "transformer_impl", "divisible_by")
        asked = {name: getattr(self, name) for name in names}
        asked |= {"dtype": dtype_name(dtype), "files": fingerprint}
        return {name: str(value) for name, value in asked.items()}

    def say(self, line: str) -> None:
        """Print a line, unless asked to be quiet."""
        if not self.quiet:
            print(line, file=sys.stderr, flush=True)


def dtype_name(dtype: torch.dtype) -> str:
    """As torch names it, without its module."""
    return str(dtype).removeprefix("torch.")


def bytes_of(text: str) -> int:
    """`5GB`, `200MB`, `4096` in bytes.

    Raises:
        ConversionError: If it is no size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]B|)", text.strip(), re.IGNORECASE)
    size = int(float(match[1]) * UNITS[match[2].upper()]) if match else 0
    if size < 1:
        raise ConversionError(f"--max-shard-size {text}: give a size such as 5GB or 200MB")
    return size
