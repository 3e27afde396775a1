"""Validation losses by name from the console log of an evaluation."""

import re
from pathlib import Path

from run_log.scalars import RunLogError

# What Megatron prints with --multiple-validation-sets and --validation-set-names; it writes these to
# tensorboard only while training.
LINE = re.compile(r"validation-(\S+) loss at .* lm loss value: (\S+)")


def read_domain_losses(log: Path) -> dict[str, float]:
    """Loss of each validation set, by name.

    Raises:
        RunLogError: If the log is not there or holds none.
    """
    if not log.is_file():
        raise RunLogError(f"{log}: no such file")
    losses = {name: float(value) for name, value in LINE.findall(log.read_text())}
    if not losses:
        raise RunLogError(f"{log}: no line 'validation-NAME loss at ...' in it")
    return losses
