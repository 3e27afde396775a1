"""Causal attention by torch's `scaled_dot_product_attention`, also under context parallelism."""

import contextlib
import math

import torch
from megatron.core.process_groups_config import ProcessGroupCollection
from megatron.core.tensor_parallel import get_cuda_rng_tracker
from megatron.core.tensor_parallel.mappings import gather_from_sequence_parallel_region
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.core.transformer.utils import is_layer_window_attention
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention


class TorchAttention(MegatronModule):
    """``softmax(q k^T / sqrt(d)) v`` without its scores in memory where torch has a fused kernel.

    Takes the place of `DotProductAttention` in the `local` spec, which keeps all scores and knows no
    context parallelism. There each rank holds two of ``2 * cp`` chunks of a sequence, chunk ``r`` and
    chunk ``2 * cp - 1 - r``, so that causal work is even. Keys and values are gathered over the group
    (their gradients reduce-scattered) and put in order; each chunk of queries then attends to the
    keys up to its own end.

    Args:
        config: Megatron's; see `is_supported`.
        layer_number: Unused; part of Megatron's slot, as are the other ignored arguments.
        attn_mask_type: `causal`, or `no_mask` for a decoder that reads its own cache.
        attention_dropout: Overrides the configuration's.
        softmax_scale: Overrides ``1 / sqrt(d)``.
        pg_collection: Its `cp` group is used.
    """

    def __init__(
        self,
        config: TransformerConfig,
        layer_number: int,
        attn_mask_type: AttnMaskType,
        attention_type: str,
        attention_dropout: float | None = None,
        softmax_scale: float | None = None,
        cp_comm_type: str | None = None,
        pg_collection: ProcessGroupCollection | None = None,
    ) -> None:
        super().__init__(config)
        if pg_collection is None:
            pg_collection = ProcessGroupCollection.use_mpu_process_groups(required_pgs=["cp"])
        self.cp_group = pg_collection.cp
        self.attn_mask_type = attn_mask_type
        self.dropout = config.attention_dropout if attention_dropout is None else attention_dropout
        # apply_query_key_layer_scaling divides the scores and multiplies them again before softmax.
        self.softmax_scale = softmax_scale or 1.0 / math.sqrt(config.kv_channels)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        attn_mask_type: AttnMaskType | None = None,
        attention_bias: Tensor | None = None,
        packed_seq_params=None,
    ) -> Tensor:
        """Attend.

        Args:
            query: ``[s, b, heads, d]``, this rank's part of the sequence.
            key: ``[s, b, groups, d]``; ``groups`` divides ``heads``.
            value: As `key`.
            attention_mask: ``[b, 1, s, s of the whole sequence]`` bool, True = do not look there; None
                for a plain causal mask.
            attn_mask_type: Overrides the constructor's.
            attention_bias: Refused.
            packed_seq_params: Refused.

        Returns:
            ``[s, b, heads * d]``.

        Raises:
            ValueError: For what this attention does not do.
        """
        mask_type = attn_mask_type or self.attn_mask_type
        if attention_bias is not None or packed_seq_params is not None:
            raise ValueError("torch-native attention has no bias and no packed sequences")
        if mask_type not in (AttnMaskType.causal, AttnMaskType.no_mask):
            raise ValueError(f"torch-native attention has no {mask_type.name} mask")
        is_split = self.cp_group.size() > 1
        if is_split:
            key, value = gather_sequence(key, value, self.cp_group)
        # [s, b, heads, d] -> [b, heads, s, d]
        query, key, value = (x.permute(1, 2, 0, 3) for x in (query, key, value))
        if attention_mask is not None:
            context = self._attend(query, key, value, attn_mask=~attention_mask)
        elif mask_type is AttnMaskType.no_mask:
            context = self._attend(query, key, value)
        elif is_split:
            context = self._attend_by_chunk(query, key, value)
        else:
            context = self._attend_until_end(query, key, value)
        # [b, heads, s, d] -> [s, b, heads * d]
        return context.permute(2, 0, 1, 3).flatten(2)

    def _attend_by_chunk(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Each of this rank's two chunks of queries against the keys up to its end."""
        rank, last = self.cp_group.rank(), 2 * self.cp_group.size() - 1
        early, late = query.chunk(2, dim=2)
        length, contexts = early.shape[2], []
        for chunk, place in ((early, rank), (late, last - rank)):
            end = (place + 1) * length
            contexts.append(self._attend_until_end(chunk, key[:, :, :end], value[:, :, :end]))
        return torch.cat(contexts, dim=2)

    def _attend_until_end(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """The queries are the last ones of the keys' sequence."""
        if query.shape[2] == key.shape[2]:
            return self._attend(query, key, value, is_causal=True)
        mask = causal_lower_right(query.shape[2], key.shape[2])
        return self._attend(query, key, value, attn_mask=mask)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, **mask) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        # Under tensor parallelism without sequence parallelism each rank drops other heads.
        forked = dropout > 0 and not self.config.sequence_parallel
        with get_cuda_rng_tracker().fork() if forked else contextlib.nullcontext():
            return scaled_dot_product_attention(
                query,
                key,
                value,
                dropout_p=dropout,
                scale=self.softmax_scale,
                enable_gqa=query.shape[1] != key.shape[1],
                **mask,
            )

    @staticmethod
    def is_supported(config: TransformerConfig) -> bool:
        """Whether this attention computes what the configuration asks for."""
        windowed = any(
            is_layer_window_attention(config.window_size, config.window_attn_skip_freq, layer)
            for layer in range(1, config.num_layers + 1)
        )
        return config.softmax_type == "vanilla" and not windowed


def gather_sequence(
    key: Tensor, value: Tensor, cp_group: torch.distributed.ProcessGroup
) -> tuple[Tensor, Tensor]:
    """Bring the whole sequence's keys and values to every context-parallel rank, in order.

    Args:
        key: ``[s, b, groups, d]``: chunk ``r``, then chunk ``2 * cp - 1 - r``.
        value: Its values.
        cp_group: ``cp`` ranks.

    Returns:
        Both, ``[cp * s, b, groups, d]``. Backward each rank gets the sum of what all ranks' queries
        gave its own keys and values.
    """
    size, width = cp_group.size(), key.shape[-1]
    both = gather_from_sequence_parallel_region(torch.cat([key, value], dim=-1), group=cp_group)
    chunks = both.chunk(2 * size)
    # Rank r's two chunks stand at 2r and 2r + 1.
    early, late = chunks[0::2], chunks[1::2]
    both = torch.cat([*early, *reversed(late)])
    return both[..., :width], both[..., width:]
