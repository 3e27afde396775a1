"""`pretrain_gpt.py`, with every scalar for tensorboard in a text file as well, at once and to the bit.

    python benchmarks/scalars_at_once.py FILE [arguments of pretrain_gpt.py]

Tensorboard's own files are written every two minutes: a process that is killed loses what it logged.
"""

import os
import runpy
import sys
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

SCRIPT = Path(__file__).resolve().parents[1] / "pretrain_gpt.py"


def main() -> None:
    """Replace `add_scalar`, then be `pretrain_gpt.py`, which spawned processes import by its path."""
    path = sys.argv.pop(1)
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    original = SummaryWriter.add_scalar

    def add_scalar(self, tag, value, global_step=None, *rest, **kwargs):
        os.write(file, f"{global_step}\t{tag}\t{float(value).hex()}\n".encode())
        return original(self, tag, value, global_step, *rest, **kwargs)

    SummaryWriter.add_scalar = add_scalar
    sys.argv[0] = str(SCRIPT)
    runpy.run_path(str(SCRIPT), run_name="__main__")


if __name__ == "__main__":
    main()
