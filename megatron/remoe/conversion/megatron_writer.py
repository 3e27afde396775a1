"""Writes a torch_dist checkpoint piece by piece, with tensors that are made when they are written."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint import FileSystemWriter
from torch.distributed.checkpoint.default_planner import create_default_global_save_plan
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    MetadataIndex,
    TensorProperties,
)
from torch.distributed.checkpoint.planner import (
    SavePlan,
    SavePlanner,
    TensorWriteData,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.storage import WriteResult

from megatron.remoe.checkpoint.atomic_file import atomic_file
from megatron.remoe.conversion.names import Rule

DONE = ".done"


@dataclass(frozen=True)
class Piece:
    """One entry of a checkpoint's files: a part of a tensor stacked over layers, or an object.

    Attributes:
        item: As torch plans it.
        rule: Whose tensor it is part of; None for an object.
        index: Of the part in that rule's tensor; None for all of it.
        content: Of an object.
    """

    item: WriteItem
    rule: Rule | None = None
    index: int | None = None
    content: object = None


def tensor_pieces(rule: Rule, name: str, outer: tuple[tuple[int, int], ...], dtype) -> list[Piece]:
    """The parts in which a rule's tensor is stored: one an expert, where it holds all of a layer.

    Args:
        rule: Of the tensor.
        name: Of the stored tensor.
        outer: Index and size of each dimension that it is stacked over.
        dtype: Of the stored tensor.
    """
    size = torch.Size((*(size for _, size in outer), *rule.shape))
    here = tuple(index for index, _ in outer)
    by_expert = len(rule.shape) == 3  # [num_experts, rows, columns]
    pieces = []
    for part in range(rule.shape[0]) if by_expert else [None]:
        index = here if part is None else (*here, part)
        inner = rule.shape if part is None else rule.shape[1:]
        chunk = ChunkStorageMetadata(
            torch.Size((*index, *[0] * len(inner))), torch.Size((*[1] * len(index), *inner))
        )
        data = TensorWriteData(chunk, TensorProperties(dtype=dtype), size)
        item = WriteItem(MetadataIndex(name, chunk.offsets), WriteItemType.SHARD, tensor_data=data)
        pieces.append(Piece(item, rule, part))
    return pieces


def object_piece(name: str, content: object) -> Piece:
    """An object as Megatron's checkpointing stores it: in a list."""
    return Piece(WriteItem(MetadataIndex(name), WriteItemType.BYTE_IO), content=[content])


def split_into_files(pieces: list[Piece], max_size: int) -> list[list[Piece]]:
    """Put pieces into files in their order, all of a rule's into one."""
    files, size, last = [[]], 0, None
    for piece in pieces:
        more = piece_size(piece)
        if size + more > max_size and files[-1] and piece.rule is not last:
            files.append([])
            size = 0
        files[-1].append(piece)
        size, last = size + more, piece.rule
    return files


def piece_size(piece: Piece) -> int:
    """Bytes of a tensor's part; 0 for an object."""
    if piece.rule is None:
        return 0
    data = piece.item.tensor_data
    return data.chunk.sizes.numel() * data.properties.dtype.itemsize


def write_checkpoint(
    folder: Path,
    files: list[list[Piece]],
    make: Callable[[Rule], Tensor],
    progress: Callable[[int], object],
) -> None:
    """Write the files that are not there yet, then the index.

    Each file is a plan of its own, as that of one rank, so that what was written before a kill stands.

    Args:
        folder: Of the iteration.
        files: The pieces of each.
        make: Gives a rule's tensor; called once for all its pieces.
        progress: Told the bytes that were written.
    """
    writer = FileSystemWriter(folder, per_thread_copy_ahead=0)  # 0: one tensor at a time
    plans, index = create_default_global_save_plan(
        [SavePlan([piece.item for piece in pieces]) for pieces in files]
    )
    plans = writer.prepare_global_plan(plans)
    results = []
    for number, (plan, pieces) in enumerate(zip(plans, files, strict=True)):
        done = folder / f"{number}{DONE}"
        if not done.is_file():
            planner = _Lazy(plan, pieces, make, progress)
            written = writer.write_data(plan, planner).wait()
            with atomic_file(done) as file:
                json.dump([_as_json(result) for result in written], file)
        else:
            progress(sum(map(piece_size, pieces)))
        results.append([_from_json(entry) for entry in json.loads(done.read_text())])
    writer.finish(index, results)
    (folder / "metadata.json").write_text(
        json.dumps({"sharded_backend": "torch_dist", "sharded_backend_version": 1})
    )
    for path in folder.glob(f"*{DONE}"):
        path.unlink()


class _Lazy(SavePlanner):
    """Makes each tensor when the writer asks for a part of it, and keeps the last one only."""

    def __init__(self, plan: SavePlan, pieces: list[Piece], make, progress) -> None:
        self._pieces = {item.index: piece for item, piece in zip(plan.items, pieces, strict=True)}
        self._make, self._progress = make, progress
        self._rule: Rule | None = None
        self._tensor: Tensor | None = None

    def set_up_planner(self, *args: object, **kwargs: object) -> None:
        """Nothing to prepare: the plan is made by the caller."""

    def create_local_plan(self) -> SavePlan:
        """Not called: the plan is made by the caller."""
        raise AssertionError("the plan is made by the caller")

    def create_global_plan(self, all_plans: list[SavePlan]) -> tuple:
        """Not called: the plan is made by the caller."""
        raise AssertionError("the plan is made by the caller")

    def finish_plan(self, new_plan: SavePlan) -> SavePlan:
        """As it is."""
        return new_plan

    def resolve_data(self, write_item: WriteItem) -> Tensor | io.BytesIO:
        """The part of a tensor, or the object."""
        piece = self._pieces[write_item.index]
        if piece.rule is None:
            stream = io.BytesIO()
            torch.save(piece.content, stream)
            return stream
        if piece.rule is not self._rule:
            self._tensor = None  # before the next is made
            self._rule, self._tensor = piece.rule, self._make(piece.rule)
        part = self._tensor if piece.index is None else self._tensor[piece.index]
        data = write_item.tensor_data
        self._progress(piece_size(piece))
        return part.to(data.properties.dtype).reshape(data.chunk.sizes)


def _as_json(result: WriteResult) -> dict:
    place, index = result.storage_data, result.index
    return {
        "name": index.fqn,
        "offsets": None if index.offset is None else list(index.offset),
        "index": index.index,
        "bytes": result.size_in_bytes,
        "file": place.relative_path,
        "offset": place.offset,
        "length": place.length,
    }


def _from_json(entry: dict) -> WriteResult:
    offsets = None if entry["offsets"] is None else torch.Size(entry["offsets"])
    index = MetadataIndex(entry["name"], offsets)
    place = _StorageInfo(entry["file"], entry["offset"], entry["length"])
    return WriteResult(replace(index, index=entry["index"]), entry["bytes"], place)
