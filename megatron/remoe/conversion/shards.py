"""Writes safetensors files one tensor at a time; a shard that is finished is not written again.

The library's own `save_file` wants all tensors of a file at once, which is what is not to be in memory.
"""

import json
import os
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
}


@dataclass(frozen=True)
class Planned:
    """A tensor that is to be written."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Of its data."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


@dataclass
class Shard:
    """One file: groups of tensors, each made by one call of `make`."""

    name: str = ""
    groups: list[tuple[list[Planned], Callable[[], Iterable[Tensor]]]] = field(default_factory=list)

    @property
    def planned(self) -> list[Planned]:
        """All its tensors in the order of the file."""
        return [tensor for tensors, _ in self.groups for tensor in tensors]

    @property
    def nbytes(self) -> int:
        """Of its tensors."""
        return sum(tensor.nbytes for tensor in self.planned)


def split_into_shards(groups: list, max_size: int) -> list[Shard]:
    """Put groups of tensors into files in their order, none larger than `max_size` but for one group.

    Args:
        groups: ``(tensors, make)``: what is made together, and how.
        max_size: Bytes of a file.
    """
    shards, size = [Shard()], 0
    for tensors, make in groups:
        more = sum(tensor.nbytes for tensor in tensors)
        if size and size + more > max_size:
            shards.append(Shard())
            size = 0
        shards[-1].groups.append((tensors, make))
        size += more
    for number, shard in enumerate(shards, start=1):
        numbered = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        shard.name = numbered if len(shards) > 1 else "model.safetensors"
        # Wider dtypes first, so that each tensor is aligned to its own.
        shard.groups.sort(key=lambda group: -max(t.dtype.itemsize for t in group[0]))
    return shards


def write_shard(path: Path, shard: Shard, progress: Callable[[int], object]) -> None:
    """Write a file, unless it is there already; it appears whole.

    Args:
        path: Of the file.
        shard: What is in it.
        progress: Told the bytes that were written.
    """
    if is_written(path, shard):
        progress(shard.nbytes)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".tmp")
    with part.open("wb") as file:
        header = _header(shard.planned)
        file.write(struct.pack("<Q", len(header)) + header)
        for tensors, make in shard.groups:
            for planned, tensor in zip(tensors, make(), strict=True):
                _write(file, planned, tensor)
                progress(planned.nbytes)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)


def is_written(path: Path, shard: Shard) -> bool:
    """Whether a file is there and has these tensors."""
    if not path.is_file():
        return False
    try:
        with safe_open(path, "pt") as file:
            names = set(file.keys())
    except SafetensorError:
        return False
    return names == {tensor.name for tensor in shard.planned}


def write_index(folder: Path, shards: list[Shard]) -> None:
    """Say which file holds which tensor, where there are several."""
    if len(shards) == 1:
        return
    numel = sum(torch.Size(t.shape).numel() for shard in shards for t in shard.planned)
    index = {
        "metadata": {
            "total_size": sum(shard.nbytes for shard in shards),
            "total_parameters": numel,
        },
        "weight_map": {t.name: shard.name for shard in shards for t in shard.planned},
    }
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def _header(planned: list[Planned]) -> bytes:
    entries: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in planned:
        entries[tensor.name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.nbytes],
        }
        offset += tensor.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)  # so that the data begins aligned


def _write(file, planned: Planned, tensor: Tensor) -> None:
    assert tuple(tensor.shape) == planned.shape, f"{planned.name}: {tensor.shape}"
    flat = tensor.to(planned.dtype).contiguous().reshape(-1)
    if flat.numel():
        file.write(memoryview(flat.view(torch.uint8).numpy()))
