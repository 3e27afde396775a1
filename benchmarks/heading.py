"""The line that says where and of what a measurement is."""

import datetime
import importlib.metadata
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def heading(threads: int) -> str:
    """Device, threads, versions, date and commit (with a + where files differ from it)."""
    versions = ", ".join(
        f"{name} {importlib.metadata.version(name)}"
        for name in ("torch", "megatron-core", "transformers")
    )
    date = datetime.datetime.now(datetime.UTC).date()
    return f"{device_name()}, {threads} threads; {versions}; {date}; `{commit()}`"


def has_gpu() -> bool:
    """Whether torch has one; asks nothing that `megatron.remoe.cpu` answers for a GPU."""
    import torch

    return bool(torch.version.cuda) and any(Path("/dev").glob("nvidia[0-9]*"))


def device_name() -> str:
    """The GPU's, else the CPU's."""
    if has_gpu():
        import torch

        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "CPU"


def commit() -> str:
    """Of the working tree."""
    described = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    done = subprocess.run(described, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "no commit"
