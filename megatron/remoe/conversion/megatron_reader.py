"""Reads single tensors of a torch_dist checkpoint, whatever layout saved it, without a process group."""

import re
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, TensorStorageMetadata
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, ReadItem
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

from megatron.remoe.checkpoint.patches import guard_checkpoints
from megatron.remoe.conversion.architecture import ConversionError
from megatron.remoe.conversion.names import MLP_NORM, Place, Rule

# Where a norm before the MLP may lie: in TransformerEngine's spec, in Megatron's local one.
ALIASES = {MLP_NORM: ("pre_mlp_layernorm.weight", "mlp.linear_fc1.layer_norm_weight")}
# What belongs to a run, not to its model.
NOT_THE_MODEL = re.compile(r"(chained_\d+\.)?optimizer\.|rng_state|rerun_state_machine")


class MegatronReader:
    """The tensors of one iteration's folder, one at a time.

    Nothing that is stored is run. A call reads the pieces that overlap with what is asked for, so that
    it needs memory for that and for one piece.

    Args:
        folder: Of one iteration, found whole by `checkpoint.files.what_is_wrong`.
    """

    def __init__(self, folder: Path) -> None:
        guard_checkpoints()
        self.folder = folder
        self._reader = FileSystemReader(folder)
        index = self._reader.read_metadata()
        self._reader.set_up_storage_reader(index, is_coordinator=True)
        self._tensors = {
            name: entry
            for name, entry in index.state_dict_metadata.items()
            if isinstance(entry, TensorStorageMetadata) and not NOT_THE_MODEL.match(name)
        }

    def has(self, place: Place) -> bool:
        """Whether the checkpoint holds a tensor."""
        return self._find(place) is not None

    def shape(self, place: Place) -> tuple[int, ...]:
        """Of one layer's (and expert's) tensor.

        Raises:
            ConversionError: If it is not there.
        """
        return self._locate(place)[2]

    def dtype(self, place: Place) -> torch.dtype:
        """Of a tensor."""
        return self._tensors[self._locate(place)[0]].properties.dtype

    def read(self, place: Place) -> Tensor:
        """One layer's (and expert's) tensor.

        Raises:
            ConversionError: If it is not there, or its pieces do not cover it.
        """
        name, index, shape = self._locate(place)
        entry = self._tensors[name]
        offsets, sizes = (*index, *[0] * len(shape)), (*[1] * len(index), *shape)
        chunk = ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes))
        items = create_read_items_for_chunk_list(name, entry, [chunk])
        planner = _OneTensor(torch.empty(sizes, dtype=entry.properties.dtype))
        if sum(item.lengths.numel() for item in items) != planner.tensor.numel():
            raise ConversionError(f"{self.folder}: the pieces of {place} do not cover it")
        self._reader.read_data(LoadPlan(items), planner).wait()
        return planner.tensor.reshape(shape)

    def check(self, rules: list[Rule]) -> None:
        """Refuse a checkpoint that lacks a tensor, has one of another shape, or one of no rule.

        Raises:
            ConversionError: Naming the tensor.
        """
        mapped = set()
        for rule in rules:
            name, _, shape = self._locate(rule.place)
            mapped.add(name)
            if shape != rule.shape:
                raise ConversionError(
                    f"{self.folder}: {rule.place} is {list(shape)}, its settings say "
                    f"{list(rule.shape)}: the checkpoint's settings are of another model"
                )
        if left := sorted(self._tensors.keys() - mapped):
            more = f" and {len(left) - 1} more" if len(left) > 1 else ""
            raise ConversionError(
                f"{self.folder}: {left[0]}{more} cannot be expressed in Hugging Face form"
            )

    def _locate(self, place: Place) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
        """The stored name, the index into its first dimensions, and the shape of the rest."""
        found = self._find(place)
        if found is None:
            raise ConversionError(f"{self.folder}: {place} is missing")
        name, index = found
        return name, index, tuple(self._tensors[name].size[len(index) :])

    def _find(self, place: Place) -> tuple[str, tuple[int, ...]] | None:
        if place.layer is None:
            return (place.name, ()) if place.name in self._tensors else None
        expert = () if place.expert is None else (place.expert,)
        for name in ALIASES.get(place.name, (place.name,)):
            stacked, own = f"decoder.layers.{name}", f"decoder.layers.{place.layer}.{name}"
            for key, index in ((stacked, (place.layer, *expert)), (own, expert)):
                entry = self._tensors.get(key)
                if entry is None:
                    continue
                if all(i < size for i, size in zip(index, entry.size, strict=False)):
                    return key, index
        return None


class _OneTensor(LoadPlanner):
    """Lets a storage reader fill one tensor."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def set_up_planner(self, *args: object, **kwargs: object) -> None:
        """Nothing to prepare: the plan is made by the caller."""

    def create_local_plan(self) -> LoadPlan:
        """Not called: the plan is made by the caller."""
        raise AssertionError("the plan is made by the caller")

    def create_global_plan(self, global_plan: list[LoadPlan]) -> list[LoadPlan]:
        """As it is."""
        return global_plan

    def finish_plan(self, central_plan: LoadPlan) -> LoadPlan:
        """As it is."""
        return central_plan

    def load_bytes(self, read_item: ReadItem, value: object) -> None:
        """Not called: tensors only."""
        raise AssertionError("only tensors are asked for")

    def resolve_tensor(self, read_item: ReadItem) -> Tensor:
        """The part that a stored piece fills."""
        part = self.tensor
        for dim, (start, length) in enumerate(
            zip(read_item.dest_offsets, read_item.lengths, strict=True)
        ):
            part = part.narrow(dim, start, length)
        return part

    def commit_tensor(self, read_item: ReadItem, tensor: Tensor) -> None:
        """It was filled in place."""
