"""Reads a Hugging Face folder: config.json and safetensors, and nothing that could run code."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from megatron.remoe.conversion.architecture import ConversionError
from megatron.remoe.conversion.families import CLASSES
from megatron.remoe.conversion.names import PADDING, Rule
from megatron.remoe.conversion.shards import DTYPES

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
# Beside the weights, in a folder of their own: loaders take every safetensors file beside config.json.
KEPT = "megatron"
PADDING_FILE = f"{KEPT}/padding.safetensors"
SETTINGS_FILE = f"{KEPT}/settings.json"
TORCH_DTYPES = {name: dtype for dtype, name in DTYPES.items()}


def read_config(folder: Path) -> dict:
    """config.json of a family that can be converted.

    Raises:
        ConversionError: In one line, if there is none, it cannot be read, it is of another architecture,
            or the folder asks to run code of its own.
    """
    if not folder.is_dir():
        raise ConversionError(f"--input {folder}: there is no such folder")
    config = _read_json(folder / "config.json")
    family = config.get("model_type")
    from remoe.hf.foreign_code import foreign_code  # transformers' modelling takes long to import

    if foreign := foreign_code(folder):
        raise ConversionError(f"{foreign}: refused")
    if family not in CLASSES:
        raise ConversionError(
            f"{folder}/config.json: model_type {family!r} cannot be converted: only "
            f"{', '.join(CLASSES)}"
        )
    named = config.get("architectures") or [CLASSES[family]]
    if named != [CLASSES[family]]:
        raise ConversionError(
            f"{folder}/config.json: architectures {named} is not the language model {CLASSES[family]}"
        )
    return config


def read_kept(folder: Path) -> dict:
    """What a conversion from Megatron's form kept in the folder; empty where there is nothing."""
    return _read_json(folder / SETTINGS_FILE) if (folder / SETTINGS_FILE).is_file() else {}


def _read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ConversionError(f"{path}: is missing") from error
    except (OSError, ValueError) as error:
        raise ConversionError(f"{path}: cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise ConversionError(f"{path}: is not a dictionary")
    return content


class HuggingFaceReader:
    """The tensors of a folder of safetensors, one at a time.

    Args:
        folder: Where config.json is.

    Raises:
        ConversionError: If a shard is missing or truncated, or the weights are pickles.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file_of: dict[str, Path] = {}
        for name, path in self._listed().items():
            self._file_of[name] = path
        padding = folder / PADDING_FILE
        if padding.is_file():
            self._file_of |= dict.fromkeys(self._names(padding), padding)

    @property
    def files(self) -> list[Path]:
        """Every file that is read."""
        return sorted({*self._file_of.values(), self.folder / "config.json"})

    def check(self, rules: list[Rule], unused: dict[str, tuple[int, ...]]) -> None:
        """Refuse a folder that lacks a tensor, has one of another shape or kind, or one of no rule.

        Args:
            rules: Of the model.
            unused: Names and shapes that its architecture has besides.

        Raises:
            ConversionError: Naming the tensor.
        """
        wanted = {name: shape for rule in rules for name, shape in rule.hf.items()} | unused
        wanted = {name: shape for name, shape in wanted.items() if not name.startswith(PADDING)}
        for name, shape in wanted.items():
            if name not in self._file_of:
                raise ConversionError(f"{self.folder}: the tensor {name} is missing")
            if self.shape(name) != shape:
                raise ConversionError(
                    f"{self.folder}: {name} is {list(self.shape(name))}, config.json says {list(shape)}"
                )
            self.dtype(name)
        ours = {name for name in self._file_of if not name.startswith(PADDING)}
        if left := sorted(ours - wanted.keys()):
            more = f" and {len(left) - 1} more" if len(left) > 1 else ""
            raise ConversionError(
                f"{self.folder}: {left[0]}{more} has no place in Megatron's form of this model"
            )

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor."""
        with safe_open(self._file_of[name], "pt") as file:
            return tuple(file.get_slice(name).get_shape())

    def dtype(self, name: str) -> torch.dtype:
        """Of a tensor.

        Raises:
            ConversionError: If weights are not floating-point numbers.
        """
        with safe_open(self._file_of[name], "pt") as file:
            code = file.get_slice(name).get_dtype()
        if code not in TORCH_DTYPES:
            raise ConversionError(f"{self.folder}: {name} is of dtype {code}: quantised?")
        return TORCH_DTYPES[code]

    def read(self, name: str) -> Tensor:
        """One tensor."""
        with safe_open(self._file_of[name], "pt") as file:
            return file.get_tensor(name)

    def padding(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Rows beyond the vocabulary: those that were kept, else zeros."""
        if name in self._file_of and self.shape(name) == shape:
            return self.read(name)
        return torch.zeros(shape, dtype=dtype)

    def _listed(self) -> dict[str, Path]:
        folder = self.folder
        if (folder / INDEX).is_file():
            weight_map = _read_json(folder / INDEX).get("weight_map")
            if not isinstance(weight_map, dict):
                raise ConversionError(f"{folder}/{INDEX}: has no weight_map")
            return self._from_index(weight_map)
        if (folder / SINGLE).is_file():
            return dict.fromkeys(self._names(folder / SINGLE), folder / SINGLE)
        pickles = sorted([*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")])
        if pickles:
            raise ConversionError(
                f"{pickles[0]}: is a pickle, which could run code: refused: only safetensors are read"
            )
        raise ConversionError(f"{folder}: neither {SINGLE} nor {INDEX} is there")

    def _from_index(self, weight_map: dict[str, str]) -> dict[str, Path]:
        listed: dict[str, Path] = {}
        for shard in sorted(set(weight_map.values())):
            path = self.folder / shard
            if path.parent != self.folder or not path.name.endswith(".safetensors"):
                raise ConversionError(f"{self.folder}/{INDEX}: names {shard!r}: refused")
            if not path.is_file():
                raise ConversionError(f"{path}: is missing ({INDEX} names it)")
            listed |= dict.fromkeys(self._names(path), path)
        for name, shard in weight_map.items():
            if listed.get(name) != self.folder / shard:
                raise ConversionError(f"{self.folder / shard}: lacks {name} ({INDEX} says so)")
        return listed

    def _names(self, path: Path) -> list[str]:
        try:
            with safe_open(path, "pt") as file:
                return list(file.keys())
        except (SafetensorError, OSError) as error:
            raise ConversionError(f"{path}: truncated or damaged ({error})") from error
