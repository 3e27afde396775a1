"""Bytes that the fullest rank of a run needs while tokens have so many active experts.

Symbols: ``T`` tokens of a micro-batch on a context-parallel rank, ``t`` those of them that norms see
(``T / tp`` under sequence parallelism, else ``T``), ``h`` hidden size, ``f`` width of an expert on its
rank, ``E`` experts, ``a`` active ones a token, ``v`` bytes of a value. What is kept for the backward
pass (`layer_bytes`), by hand::

    a norm         t h * 8                  torch's; TransformerEngine's t h v
    attention      t h v                    its input
                   T (q + 2 kv + q + kv + q) v / tp + 4 T heads / tp
                                            qkv, both rotated, output, sums of its softmax
    experts' input t h v                    shared by router, permutation and shared expert
    router         t E v                    the gates
    a row          (h + 6 f + 1) v + 24     input, fc1's two halves, silu, a copy of the other half,
                                            their product, that times the gate; gate, ids.
                                            Grouped on torch, or fused: 3 f; without GLU 3 f, fused 2 f
    rows           t a etp                  in each MoE layer, if experts are equally loaded

A stage keeps this for as many micro-batches as it has in flight. On top comes what is never kept for
long, the larger of: logits (``T vocabulary / tp`` times v + 8; fp32 v + 4), or one layer's backward
pass. Measured on the CPU by `benchmarks/stages.py` (E 8 and 32; dense and sparse), a step's peak
without weights, gradients and optimizer: 524 205 1681 236 MiB; by this: 518 218 1722 218. Since freed
memory is kept there (`cpu.py`), a process holds up to a quarter more than it uses.
"""

import math
from dataclasses import dataclass

from megatron.remoe.memory.shape import Shape


@dataclass(frozen=True)
class Estimate:
    """Bytes on one rank.

    Attributes:
        stage: Pipeline rank, from 0.
        weights: And so on: see the names.
        activations: Kept for the backward pass outside of experts.
        experts: Kept for the backward pass in experts.
        working: At the peak beyond what is kept: logits, or the backward pass of one layer.
    """

    stage: int
    weights: float
    gradients: float
    optimizer: float
    activations: float
    experts: float
    working: float

    @property
    def total(self) -> float:
        """All of it."""
        state = self.weights + self.gradients + self.optimizer
        return state + self.activations + self.experts + self.working


def estimate(shape: Shape, active: float) -> Estimate:
    """Bytes on the rank with most.

    Args:
        shape: Of the run.
        active: Experts a token, in the mean of tokens and layers.
    """
    stages = (stage_estimate(shape, stage, active) for stage in range(shape.pp))
    return max(stages, key=lambda found: found.total)


def peak(shape: Shape) -> Estimate:
    """The largest estimate while active experts fall from where they start to ``k``.

    With `chunk_above` M that may be where chunks end, at M experts a token.
    """
    points = [shape.dense_active, float(shape.topk)]
    if shape.chunk_above is not None:
        points.append(min(shape.chunk_above, shape.dense_active))
    return max((estimate(shape, active) for active in points), key=lambda found: found.total)


def stage_estimate(shape: Shape, stage: int, active: float) -> Estimate:
    """As `estimate`, for a rank of one pipeline stage."""
    layers, is_last = shape.stages[stage], stage == shape.pp - 1
    kept, experts, working = _kept(shape, layers, active)
    in_flight = micro_batches_in_flight(shape, stage)
    kept, experts, logits = kept * in_flight, experts * in_flight, 0.0
    if is_last:
        kept += _sequence_tokens(shape) * shape.hidden * (shape.norm_bytes + shape.value_bytes)
        # Logits, their fp32 copy (where they are not), and the copy that becomes the softmax.
        width = 8 if shape.value_bytes == 4 else shape.value_bytes + 8
        logits = _tokens(shape) * shape.vocabulary / shape.tp * width
    dense, expert = _num_weights(shape, stage)
    shards = (shape.replicas, shape.expert_replicas) if shape.distributed_optimizer else (1, 1)
    return Estimate(
        stage=stage,
        weights=(dense + expert) * shape.value_bytes,
        gradients=(dense + expert) * shape.gradient_bytes,
        optimizer=(dense / shards[0] + expert / shards[1]) * shape.optimizer_bytes,
        activations=kept,
        experts=experts,
        working=max(logits, working),
    )


def micro_batches_in_flight(shape: Shape, stage: int) -> float:
    """Micro-batches whose activations a stage holds at once, in the mean of its virtual stages.

    ``pp - stage``; with virtual stages ``(2 (pp - stage - 1) + (vp - 1) pp + 1) / vp``; never more than
    there are.
    """
    behind = shape.pp - stage - 1
    if shape.vp > 1:
        behind = (2 * behind + (shape.vp - 1) * shape.pp + 1) / shape.vp - 1
    return min(behind + 1, shape.num_micro_batches)


def layer_bytes(shape: Shape, is_moe: bool, active: float) -> tuple[float, float]:
    """What autograd keeps of one layer and one micro-batch: outside of experts, and in them.

    Without recompute and chunks; see the head of this file.
    """
    t, tokens, v = _sequence_tokens(shape), _tokens(shape), shape.value_bytes
    other = t * shape.hidden * (2 * shape.norm_bytes + 2 * v)
    other += tokens / shape.tp * (3 * (shape.query_width + shape.key_width) * v + 4 * shape.heads)
    width = (shape.shared_width if is_moe else shape.dense_width) / shape.tp
    other += tokens * width * v * shape.dense_parts
    if not is_moe:
        return other, 0.0
    other += t * shape.num_experts * v
    return other, num_rows(shape, active) * row_bytes(shape)


def row_bytes(shape: Shape) -> float:
    """What autograd keeps of one row, a token in an expert."""
    width = shape.expert_parts * shape.expert_width / shape.etp
    return (shape.expert_hidden + width + 1) * shape.value_bytes + 24


def num_rows(shape: Shape, active: float) -> float:
    """Rows that a rank's experts get from one micro-batch in one layer, if all are equally loaded."""
    return _sequence_tokens(shape) * active * shape.etp


def _kept(shape: Shape, layers: tuple[bool, ...], active: float) -> tuple[float, float, float]:
    """Of one micro-batch in so many layers: kept outside of experts, in them; and beyond that at most.

    Backward the last layer is first; what it kept is gone when an earlier one is computed again.
    """
    others, experts, working = 0.0, 0.0, 0.0
    for place in reversed(range(len(layers))):
        other, expert, work = _layer(shape, layers, place, active)
        working = max(working, work - others - experts)
        others, experts = others + other, experts + expert
    return others, experts, working


def _layer(
    shape: Shape, layers: tuple[bool, ...], place: int, active: float
) -> tuple[float, float, float]:
    """As `layer_bytes` with chunks and recompute, and what the layer's backward pass adds."""
    other, expert = layer_bytes(shape, layers[place], active)
    again, chunk = 0.0, expert
    is_chunked = shape.chunk_above is not None and active > shape.chunk_above
    if is_chunked:
        chunk = expert / math.ceil(active / shape.chunk_above)
    # Gradients of about as much as was kept, of experts that run backward at once.
    gradients = chunk if shape.grouped_experts else chunk * shape.ep / shape.num_experts
    if is_chunked or shape.recomputes_moe:
        again, expert = chunk, 0.0
    is_uniform, is_block = shape.recompute == "uniform", shape.recompute == "block"
    if is_uniform or (is_block and place < shape.recompute_layers):
        group = min(shape.recompute_layers, len(layers)) if is_uniform else 1
        again += group * (other + expert)
        layer_input = _sequence_tokens(shape) * shape.hidden * shape.value_bytes
        other, expert = layer_input / group, 0.0
    return other, expert, again + gradients


def _num_weights(shape: Shape, stage: int) -> tuple[float, float]:
    """Weights of a rank: outside of experts, and in them."""
    h, dense, expert = shape.hidden, 0.0, 0.0
    for is_moe in shape.stages[stage]:
        attention = 2 * h * (shape.query_width + shape.key_width) / shape.tp
        width = shape.shared_width if is_moe else shape.dense_width
        dense += attention + 2 * h + shape.matrices * h * width / shape.tp
        if is_moe:
            dense += h * shape.num_experts
            width = shape.matrices * shape.expert_hidden * shape.expert_width / shape.etp
            expert += shape.num_experts / shape.ep * width
    is_first, is_last = stage == 0, stage == shape.pp - 1
    tables = is_first + (is_last and (not shape.tied_embeddings or shape.pp > 1))
    return dense + tables * shape.vocabulary * h / shape.tp + is_last * h, expert


def _tokens(shape: Shape) -> float:
    return shape.sequence_length * shape.micro_batch / shape.cp


def _sequence_tokens(shape: Shape) -> float:
    return _tokens(shape) / (shape.tp if shape.sequence_parallel else 1)
