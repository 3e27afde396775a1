"""Reads the index of a distributed checkpoint without running anything that it names.

`.metadata` is a pickle, and torch reads it with `pickle.load`: a file made for it runs any command.
"""

import pickle
from typing import BinaryIO

import torch

_CHECKPOINT = "torch.distributed.checkpoint"
_MEGATRON = "megatron.core.dist_checkpointing.strategies"

# (module, name): plain data classes and enums of torch's format. `_get_layout` looks a name up.
ALLOWED = {
    ("collections", "OrderedDict"),
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    ("datetime", "timedelta"),
    ("pathlib", "PosixPath"),
    (f"{_CHECKPOINT}.filesystem", "_StorageInfo"),
    (f"{_CHECKPOINT}.filesystem", "_StoragePrefix"),
    *(
        (f"{_CHECKPOINT}.metadata", name)
        for name in (
            "BytesStorageMetadata",
            "ChunkStorageMetadata",
            "Metadata",
            "MetadataIndex",
            "StorageMeta",
            "TensorProperties",
            "TensorStorageMetadata",
            "_MEM_FORMAT_ENCODING",
        )
    ),
    *(
        (f"{_CHECKPOINT}.planner", name)
        for name in (
            "BytesIOWriteData",
            "SavePlan",
            "TensorWriteData",
            "WriteItem",
            "WriteItemType",
        )
    ),
    # of checkpoints that Megatron 0.15 and older saved
    (f"{_MEGATRON}.torch", "MCoreMetadata"),
    (f"{_MEGATRON}.torch", "MCoreSavePlan"),
}


class MetadataUnpickler(pickle.Unpickler):
    """Unpickles what `.metadata` holds and nothing else."""

    def find_class(self, module: str, name: str) -> object:
        """Look up an allowed name.

        Raises:
            pickle.UnpicklingError: For any other.
        """
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if is_dtype or (module, name) in ALLOWED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which could run code")


def load_metadata(file: BinaryIO) -> object:
    """`pickle.load` for `.metadata`."""
    return MetadataUnpickler(file).load()
