"""Megatron's experts with the weights of all in one tensor, so that one product serves them all."""

import copy
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from megatron.core.dist_checkpointing.mapping import (
    ShardedStateDict,
    ShardedTensor,
    ShardedTensorFactory,
)
from megatron.core.fusions.fused_bias_swiglu import weighted_bias_swiglu_impl
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.tensor_parallel import set_tensor_model_parallel_attributes
from megatron.core.transformer.mlp import MLP, MLPSubmodules
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.utils import make_sharded_object_for_checkpoint
from torch import Tensor
from torch.nn import Parameter

from megatron.remoe import cpu
from megatron.remoe.torch_native.grouped_gemm import grouped_mm, has_grouped_mm, loop_of_mm
from remoe.kernels.weighted_swiglu import weighted_swiglu

# What these experts do not do: (argument and setting, flag, whether it asks for it)
REFUSED = (
    ("add_bias_linear", "a bias (add --disable-bias-linear)", bool),
    ("moe_apply_probs_on_input", "--moe-apply-probs-on-input", bool),
    ("moe_latent_size", "--moe-latent-size", bool),
    ("moe_mlp_glu_interleave_size", "--moe-mlp-glu-interleave-size", bool),
    ("activation_func_clamp_value", "--activation-func-clamp-value", lambda v: v is not None),
    ("glu_linear_offset", "--glu-linear-offset", bool),
    ("use_te_activation_func", "--use-te-activation-func", bool),
    ("fine_grained_activation_offloading", "--fine-grained-activation-offloading", bool),
    ("delay_wgrad_compute", "--delay-wgrad-compute", bool),
    ("recompute_modules", "--recompute-modules moe_act", lambda v: "moe_act" in (v or ())),
)

# Of every linear layer of Megatron: empty but for those of TransformerEngine.
EXTRA_STATE = "._extra_state"

GEMM_NAMES = {grouped_mm: "torch's grouped_mm", loop_of_mm: "a loop of torch.mm"}


def refused_by_torch_experts(settings: object) -> list[str]:
    """What `TorchGroupedMLP` does not do of what is asked for.

    Args:
        settings: Arguments, or a `TransformerConfig`.
    """
    return [flag for name, flag, asks in REFUSED if asks(getattr(settings, name, None))]


class TorchGroupedMLP(MegatronModule):
    """``fc2_e(act(fc1_e(x)) * p)`` for the rows of each expert e, by one grouped product a layer.

    Takes the place of `SequentialMLP` where there is no TransformerEngine: the same function, the same
    weights for the same seed, and checkpoints that either of them, and `TEGroupedMLP`, loads, in any
    layout. Under expert tensor parallelism a rank holds a part of every expert's width; the dispatcher
    gathers the rows and sums what the ranks give.

    Attributes:
        weight1: ``[num_local_experts, 2 * ffn / tp, hidden]``: gate, then up (one part without GLU).
        weight2: ``[num_local_experts, hidden, ffn / tp]``.

    Args:
        num_local_experts: Experts on this rank.
        config: Megatron's; see `refused_by_torch_experts`.
        submodules: Linear layers of one expert, from whose initialisation the weights come.
        pg_collection: Its `ep`, `expt_tp` and `expt_dp` groups are used.
        name: Unused; part of Megatron's slot.

    Raises:
        ValueError: For what these experts do not do.
    """

    def __init__(
        self,
        num_local_experts: int,
        config: TransformerConfig,
        submodules: MLPSubmodules,
        pg_collection: ProcessGroupCollection,
        name: str | None = None,
    ) -> None:
        super().__init__(config=config)
        if refused := refused_by_torch_experts(config):
            raise ValueError(f"torch's grouped experts do not do {', '.join(refused)}")
        self.num_local_experts = num_local_experts
        self.ep_group, self.tp_group = pg_collection.ep, pg_collection.expt_tp
        self.dp_group = pg_collection.expt_dp
        experts = [_expert(config, submodules, self.tp_group) for _ in range(num_local_experts)]
        self.weight1 = _stack([expert.linear_fc1.weight for expert in experts])
        self.weight2 = _stack([expert.linear_fc2.weight for expert in experts])
        self.gemm = choose_gemm(config, self.weight2.shape[2])
        self.register_load_state_dict_pre_hook(_drop_extra_state)

    def forward(
        self, permuted_hidden_states: Tensor, tokens_per_expert: Tensor, permuted_probs: Tensor
    ) -> tuple[Tensor, None]:
        """Run the experts.

        Args:
            permuted_hidden_states: ``[num_rows, hidden]``, those of the first local expert first.
            tokens_per_expert: ``[num_local_experts]`` integers that sum to `num_rows`, zeros allowed.
            permuted_probs: ``[num_rows]``, the gate of each row; of the router's dtype.

        Returns:
            ``[num_rows, hidden]``, and None for the bias.
        """
        tokens_per_expert = torch.as_tensor(tokens_per_expert)
        hidden = self.gemm(permuted_hidden_states, self.weight1, tokens_per_expert)
        hidden = self._activate(hidden, permuted_probs.unsqueeze(-1))
        return self.gemm(hidden, self.weight2, tokens_per_expert), None

    def _activate(self, hidden: Tensor, probs: Tensor) -> Tensor:
        config = self.config
        is_swiglu = config.gated_linear_unit and config.activation_func is F.silu
        if is_swiglu and config.bias_activation_fusion:
            fp8_input = config.activation_func_fp8_input_store
            return weighted_bias_swiglu_impl(hidden, None, probs, fp8_input)
        if is_swiglu:
            return weighted_swiglu(hidden, probs)
        if config.gated_linear_unit:
            gate, up = hidden.chunk(2, dim=-1)
            active = config.activation_func(gate) * up
        else:
            active = config.activation_func(hidden)
        return (active * probs).to(hidden.dtype)  # gates may be of a wider dtype

    def sharded_state_dict(
        self, prefix: str = "", sharded_offsets: tuple = (), metadata: dict | None = None
    ) -> ShardedStateDict:
        """Both weights as the pieces that `SequentialMLP` saves: the same keys, shapes and offsets.

        Args:
            prefix: Of this module's keys.
            sharded_offsets: Axes of layers in front, as Megatron passes them.
            metadata: Of the checkpoint.
        """
        if (metadata or {}).get("singleton_local_shards", False):
            raise ValueError("torch's grouped experts have no key for each expert in a checkpoint")
        gate_and_up = 2 if self.config.gated_linear_unit else 1
        state = {}
        for name, layer, weight, axis, parts in (
            ("weight1", "linear_fc1", self.weight1, 0, gate_and_up),
            ("weight2", "linear_fc2", self.weight2, 1, 1),
        ):
            state[f"{prefix}{name}"] = ShardedTensorFactory(
                f"{prefix}experts.{layer}.weight",
                weight,
                partial(self._pieces, sharded_offsets, axis, parts),
                partial(_join, weight.shape),
                (0, 0, self.dp_group.rank()),
            )
            for expert, place in enumerate(self._places(sharded_offsets)):
                state[f"{prefix}{layer}{EXTRA_STATE}{expert}"] = make_sharded_object_for_checkpoint(
                    None,
                    f"{prefix}experts.{layer}{EXTRA_STATE}",
                    place,
                    (0, self.tp_group.rank(), self.dp_group.rank()),
                )
        return state

    def _places(self, sharded_offsets: tuple) -> list[tuple]:
        """`sharded_offsets` and the place of each local expert among all."""
        first = self.ep_group.rank() * self.num_local_experts
        num_experts, axis = self.ep_group.size() * self.num_local_experts, len(sharded_offsets)
        return [
            (*sharded_offsets, (axis, first + expert, num_experts))
            for expert in range(self.num_local_experts)
        ]

    @torch.no_grad()
    def _pieces(
        self,
        sharded_offsets: tuple,
        axis: int,
        parts: int,
        key: str,
        weight: Tensor,
        replica_id: tuple,
        flattened_range: slice | None,
    ) -> list[ShardedTensor]:
        """Gate and up of each expert, which lie apart in the whole tensor under tensor parallelism.

        Args:
            sharded_offsets: Axes of layers in front.
            axis: Of an expert's weight, that tensor parallelism splits.
            parts: Into which it is split before, along the same axis.
            key: Of the tensor of all experts ``[num_experts, out, in]``.
            weight: This rank's weights, or an optimizer's state of their shape.
            replica_id: Of this rank's copy.
            flattened_range: None; part of the interface.
        """
        assert flattened_range is None
        rank, size, axes = self.tp_group.rank(), self.tp_group.size(), len(sharded_offsets) + 1
        return [
            ShardedTensor.from_rank_offsets(
                key,
                piece,
                *place,
                (axes + axis, part * size + rank, parts * size),
                replica_id=replica_id,
                prepend_axis_num=axes,
            )
            for expert, place in zip(weight, self._places(sharded_offsets), strict=True)
            for part, piece in enumerate(expert.chunk(parts, dim=axis))
        ]


def choose_gemm(
    config: TransformerConfig, width: int
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """`grouped_mm` on a GPU where it is one call for such weights, else `loop_of_mm`.

    Args:
        config: For the dtype and the hidden size.
        width: Of an expert on this rank.
    """
    has_it = has_grouped_mm(config.params_dtype, config.hidden_size, width)
    if getattr(config, "moe_relu_row_budget", None) is not None:
        if not has_it:  # a loop would read the lengths that the budget keeps on the device
            raise ValueError(
                "--moe-relu-row-budget: torch has no grouped_mm for experts of this width and dtype "
                "that leaves the lengths on the device: leave it out, or use bf16 (from compute "
                "capability 9.0 on) with hidden size and width in multiples of 16 bytes"
            )
        return grouped_mm
    return loop_of_mm if cpu.is_needed() or not has_it else grouped_mm


def _expert(config: TransformerConfig, submodules: MLPSubmodules, tp_group) -> MLP:
    """One expert as `SequentialMLP` builds it, for its initialisation by the same random numbers."""
    config = copy.copy(config)
    width = config.ffn_hidden_size = config.moe_ffn_hidden_size
    return MLP(config, submodules, is_expert=True, ffn_hidden_size=width, tp_group=tp_group)


def _stack(weights: list[Parameter]) -> Parameter:
    """One parameter of all, with Megatron's marks for tensor and expert parallelism."""
    stacked, one = Parameter(torch.stack([w.detach() for w in weights])), weights[0]
    dim = one.partition_dim + 1  # experts come first
    set_tensor_model_parallel_attributes(stacked, True, dim, one.partition_stride)
    stacked.allreduce = one.allreduce
    return stacked


def _join(shape: torch.Size, pieces: list[Tensor]) -> Tensor:
    """The inverse of `TorchGroupedMLP._pieces`: parts are rows of an expert, in order."""
    return torch.cat(pieces).view(shape)


def _drop_extra_state(module, state_dict: dict, prefix: str, *args) -> None:
    """Takes out what `SequentialMLP` wants to find in a checkpoint, and torch does not know here."""
    for key in [key for key in state_dict if key.startswith(prefix) and EXTRA_STATE in key]:
        del state_dict[key]
