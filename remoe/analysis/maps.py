"""RoutingMaps: which experts a model chose for each token of a fixed calibration text."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from remoe.analysis.npz import read_npz, write_npz

FORMAT = 1
_ARRAYS = ("token_ids", "domains", "maps")
_OPTIONAL = ("gates", "losses")
# What `meta` must hold.
_ABOUT = (
    "step",
    "run",
    "method",
    "topk",
    "num_experts",
    "moe_layers",
    "domain_names",
    "vocab_size",
)


@dataclass(frozen=True)
class RoutingMaps:
    """The routing of one checkpoint on S sequences of n tokens, an .npz that `numpy.load` opens.

    In the file `meta` is a JSON string; optional arrays are left out where they are None.

    Attributes:
        meta: `format` (1), `step`, `run` (its name), `method`, `topk`, `num_experts` (E), `moe_layers`
            (1-based numbers of the L layers with experts), `domain_names` (D), `vocab_size`.
        token_ids: ``[S, n]`` int32.
        domains: ``[S]`` int32, index of each sequence's domain.
        maps: ``[L, S * n, ceil(E / 8)]`` uint8: `numpy.packbits` over the experts.
        gates: ``[L, S * n, E]`` float16, 0 where not active; None where that would be large.
        losses: ``[S, n]`` float32, nats: of the token after each; NaN for the last of a sequence.
    """

    meta: dict[str, Any]
    token_ids: np.ndarray
    domains: np.ndarray
    maps: np.ndarray
    gates: np.ndarray | None = None
    losses: np.ndarray | None = None

    def __post_init__(self) -> None:
        num_tokens, width = self.token_ids.size, -(-self.num_experts // 8)
        num_layers = len(self.meta["moe_layers"])
        wanted = {
            "maps": (num_layers, num_tokens, width),
            "domains": self.token_ids.shape[:1],
            "gates": (num_layers, num_tokens, self.num_experts),
            "losses": self.token_ids.shape,
        }
        for name, shape in wanted.items():
            array = getattr(self, name)
            if array is not None and array.shape != shape:
                raise ValueError(f"{name} is {array.shape}, and tokens, layers and experts {shape}")

    @property
    def step(self) -> int:
        """Training step of the checkpoint."""
        return self.meta["step"]

    @property
    def num_experts(self) -> int:
        """Experts of a layer, E."""
        return self.meta["num_experts"]

    @property
    def sequence_length(self) -> int:
        """Tokens of a sequence, n."""
        return self.token_ids.shape[1]

    def routing_map(self) -> np.ndarray:
        """``[L, S * n, E]`` bool, unpacked: 8 times the memory of `maps`."""
        return np.unpackbits(self.maps, axis=-1, count=self.num_experts).astype(bool)

    def token_domains(self) -> np.ndarray:
        """Domain of each token, ``[S * n]``."""
        return np.repeat(self.domains, self.sequence_length)

    def is_of(self, token_ids: np.ndarray, domains: np.ndarray, names: list[str]) -> bool:
        """Whether the maps are of this calibration text."""
        return (
            np.array_equal(self.token_ids, token_ids)
            and np.array_equal(self.domains, domains)
            and self.meta["domain_names"] == names
        )

    def save(self, path: Path) -> None:
        """Write the file: whole or not at all."""
        arrays = {name: getattr(self, name) for name in (*_ARRAYS, *_OPTIONAL)}
        write_npz(path, self.meta, {name: a for name, a in arrays.items() if a is not None})

    @classmethod
    def load(cls, path: Path) -> "RoutingMaps":
        """Read what `save` wrote.

        Raises:
            ValueError: Naming the file, where it is damaged or something else.
        """

        def build(meta: dict, file: Mapping[str, np.ndarray]) -> "RoutingMaps":
            if lacking := [name for name in _ABOUT if name not in meta]:
                raise ValueError(f"its meta lacks {lacking[0]}")
            there = (*_ARRAYS, *(name for name in _OPTIONAL if name in file))
            maps = cls(meta, **{name: file[name] for name in there})
            _check_indices("token_ids", maps.token_ids, meta["vocab_size"])
            _check_indices("domains", maps.domains, len(meta["domain_names"]))
            return maps

        return read_npz(path, "routing maps", FORMAT, build)


def _check_indices(name: str, values: np.ndarray, count: int) -> None:
    if values.dtype.kind not in "iu" or values.min(initial=0) < 0:
        raise ValueError(f"{name} holds what is no index")
    if (largest := values.max(initial=-1)) >= count:
        raise ValueError(f"{name} holds {largest}, and there are {count}")


def pack(routing_map: np.ndarray) -> np.ndarray:
    """A bool map ``[..., E]`` as `RoutingMaps.maps` has it, ``[..., ceil(E / 8)]`` uint8."""
    return np.packbits(routing_map, axis=-1)
