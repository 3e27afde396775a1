"""Routing statistics of one training step or evaluation: a record, its file, and sums of records."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from remoe.analysis.npz import read_npz, write_npz
from remoe.analysis.ratios import ratio

FORMAT = 1
# Fields of `meta` that two records must share to be added.
SHARED = ("format", "phase", "method", "topk", "moe_layers", "domain_names", "vocab_size")
_ABOUT = (*SHARED, "step", "num_steps")  # what `meta` must hold
# Of counts and of gates: sizes by the letters of `RoutingRecord`, X is E + 1.
_COUNTS = {
    "num_tokens": "",
    "tokens_per_expert": "LE",
    "experts_per_token": "LX",
    "domain_tokens": "D",
    "domain_tokens_per_expert": "DLE",
    "token_count": "V",
    "token_active": "VL",
    "token_expert_ids": "N",
    "token_tokens_per_expert": "NLE",
}
_GATES = {"gate_sum": "LE", "gate_square_sum": "LE", "gate_max": "LE"}


@dataclass(frozen=True, eq=False)
class RoutingRecord:
    """What the routers of a model did with the tokens of one or more global batches.

    L counts MoE layers in the model's order, E experts, D domains, V token ids, N the token ids that are
    followed expert by expert. Each token is counted once a layer, whatever the parallel layout was. An
    expert is active for a token where the routing map says so, after every cap.

    Attributes:
        meta: ``format`` (1), ``phase`` ("train", "valid" or "test"), ``step`` (of a training step its
            number, from 1; of an evaluation the steps trained before it), ``num_steps`` (global batches
            that are summed), ``method``, ``topk``, ``moe_layers`` (their numbers in the model, from 1),
            ``domain_names``, ``vocab_size``.
        num_tokens: Tokens that each layer saw, ``()`` int64.
        tokens_per_expert: ``[L, E]`` int64.
        experts_per_token: ``[L, E + 1]`` int64: tokens by their number of active experts; column 0 are
            those without one.
        gate_sum: Sum of the gates of active experts, ``[L, E]`` fp64.
        gate_square_sum: Sum of their squares, ``[L, E]`` fp64.
        gate_max: The largest, ``[L, E]`` fp32; 0 for an expert that no token reached.
        domain_tokens: ``[D]`` int64.
        domain_tokens_per_expert: ``[D, L, E]`` int64.
        token_count: How often each token id came, ``[V]`` int64.
        token_active: Active experts of all its occurrences, ``[V, L]`` int64.
        token_expert_ids: The token ids that are followed, ``[N]`` int64.
        token_tokens_per_expert: ``[N, L, E]`` int64.
    """

    meta: dict
    num_tokens: np.ndarray
    tokens_per_expert: np.ndarray
    experts_per_token: np.ndarray
    gate_sum: np.ndarray
    gate_square_sum: np.ndarray
    gate_max: np.ndarray
    domain_tokens: np.ndarray
    domain_tokens_per_expert: np.ndarray
    token_count: np.ndarray
    token_active: np.ndarray
    token_expert_ids: np.ndarray
    token_tokens_per_expert: np.ndarray

    @classmethod
    def load(cls, path: str | Path) -> "RoutingRecord":
        """Read a file that `save` wrote; runs nothing that is stored in it.

        Raises:
            ValueError: If it is missing, damaged, no routing record, or of another format.
        """
        names = [field.name for field in dataclasses.fields(cls) if field.name != "meta"]
        return read_npz(
            path,
            "a routing record",
            FORMAT,
            lambda meta, file: _checked(cls(meta, **{name: file[name] for name in names})),
        )

    def save(self, path: str | Path) -> None:
        """Write a compressed ``.npz``; the file is there whole or not at all.

        The same record always gives the same bytes.
        """
        arrays = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        write_npz(Path(path), arrays.pop("meta"), arrays)

    def __add__(self, other: "RoutingRecord") -> "RoutingRecord":
        """The record of both sets of tokens; its step is the later one.

        Raises:
            ValueError: If they are of different models, phases or domains.
        """
        for name in SHARED:
            mine, theirs = self.meta[name], other.meta[name]
            if mine != theirs:
                raise ValueError(
                    f"records with {name} {mine} and {theirs}: give some that share it"
                )
        if not np.array_equal(self.token_expert_ids, other.token_expert_ids):
            raise ValueError("records that follow different token ids cannot be added")
        values = {}
        for field in dataclasses.fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            if field.name not in ("meta", "gate_max", "token_expert_ids"):
                values[field.name] = mine + theirs
        return dataclasses.replace(
            self,
            **values,
            gate_max=np.maximum(self.gate_max, other.gate_max),
            meta=self.meta
            | {
                "step": max(self.step, other.step),
                "num_steps": self.meta["num_steps"] + other.meta["num_steps"],
            },
        )

    @property
    def step(self) -> int:
        """Of ``meta``."""
        return self.meta["step"]

    @property
    def phase(self) -> str:
        """Of ``meta``."""
        return self.meta["phase"]

    @property
    def domain_names(self) -> list[str]:
        """Of ``meta``."""
        return self.meta["domain_names"]

    @property
    def num_layers(self) -> int:
        """L, MoE layers."""
        return self.tokens_per_expert.shape[0]

    @property
    def num_experts(self) -> int:
        """E."""
        return self.tokens_per_expert.shape[1]

    @property
    def active_experts(self) -> np.ndarray:
        """Mean active experts a token, ``[L]`` fp64."""
        return ratio(self.tokens_per_expert.sum(axis=1), self.num_tokens)

    @property
    def sparsity(self) -> np.ndarray:
        """``1 - active_experts / E`` (eq. 8, by layer), ``[L]`` fp64."""
        return 1.0 - self.active_experts / self.num_experts

    @property
    def dead_experts(self) -> np.ndarray:
        """Experts that no token reached, ``[L]`` int64."""
        return (self.tokens_per_expert == 0).sum(axis=1)

    @property
    def tokens_without_expert(self) -> np.ndarray:
        """Share of tokens without an active expert, ``[L]`` fp64."""
        return ratio(self.experts_per_token[:, 0], self.num_tokens)

    @property
    def gate_mean(self) -> np.ndarray:
        """Mean gate of active (token, expert) pairs, ``[L, E]`` fp64; NaN for a dead expert."""
        return ratio(self.gate_sum, self.tokens_per_expert)

    @property
    def gate_std(self) -> np.ndarray:
        """Standard deviation of those gates, ``[L, E]`` fp64."""
        mean_square = ratio(self.gate_square_sum, self.tokens_per_expert)
        return np.sqrt(np.maximum(mean_square - self.gate_mean**2, 0.0))


def _checked(record: RoutingRecord) -> RoutingRecord:
    """A record of a file, if its parts fit each other.

    Raises:
        ValueError: Saying which does not.
    """
    meta = record.meta
    if lacking := [name for name in _ABOUT if name not in meta]:
        raise ValueError(f"its meta lacks {lacking[0]}")
    num_experts = (record.tokens_per_expert.shape or (0,))[-1]
    sizes = {"L": len(meta["moe_layers"]), "E": num_experts, "X": num_experts + 1}
    sizes |= {"D": len(meta["domain_names"]), "V": meta["vocab_size"]}
    sizes["N"] = record.token_expert_ids.size
    for name, letters in (_COUNTS | _GATES).items():
        array, wanted = getattr(record, name), tuple(sizes[letter] for letter in letters)
        if array.shape != wanted:
            raise ValueError(f"{name} is {array.shape}, and layers, experts and domains {wanted}")
        if array.dtype.kind not in ("iu" if name in _COUNTS else "f"):
            raise ValueError(f"{name} holds {array.dtype}")
    return record
