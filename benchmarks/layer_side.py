"""A child of moe_layer.py: forward and backward of one MoE layer, step by step in turns."""

import itertools
import json
import statistics
import sys
import time
from pathlib import Path

import torch
from hugging_face_experts import choose_experts
from megatron_layers import KINDS, active_experts, device, join_world, make_layer
from peak_memory import PeakMemory
from routed_tokens import routed_tokens
from shapes import Shape
from turns import Turns

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
HUGGING_FACE = ("Mixtral", "Olmoe")


def main(kind, shape):
    """Serve turns; facts say what is timed.

    Args:
        kind: One of `KINDS` or `HUGGING_FACE`.
        shape: Fields of a `Shape`.
    """
    shape, turns = Shape(**shape), Turns()
    if kind in KINDS:
        join_world()
    turns.count_memory(PeakMemory())
    turns.facts["threads"] = torch.get_num_threads()
    tokens, weight = routed_tokens(shape.tokens, shape.hidden, shape.experts, shape.topk)
    hidden_states = tokens.view(shape.length, shape.sequences, -1).to(device())
    hidden_states = hidden_states.to(torch.bfloat16 if shape.bf16 else torch.float32)
    if kind in KINDS:
        layer = make_layer(kind, shape, weight)
        active = active_experts(layer, hidden_states).float()
        turns.facts |= {"active": active.mean().item(), "most": int(active.max())}
        turns.facts["without"] = (active == 0).float().mean().item()
    else:
        layer = make_block(kind, shape, weight).to(hidden_states)
        turns.facts["experts"] = choose_experts(
            layer.experts.config, shape.tokens, lambda: median_step(layer, hidden_states)
        )
    turns.facts["parameters"] = sum(p.numel() for p in layer.parameters())
    for _ in itertools.count():
        turns.take(lambda: step(layer, hidden_states), lambda _: {})


def make_block(kind, shape, weight):
    """The sparse MoE block of transformers, with this weight in its router."""
    import transformers

    modules = getattr(transformers.models, kind.lower())
    name = {"Mixtral": "num_local_experts", "Olmoe": "num_experts"}[kind]
    settings = {**shape.hugging_face(), "num_experts_per_tok": shape.topk, name: shape.experts}
    config = getattr(transformers, f"{kind}Config")(**settings)
    block = getattr(getattr(modules, f"modeling_{kind.lower()}"), f"{kind}SparseMoeBlock")(config)
    with torch.no_grad():
        for parameter in block.parameters():  # made empty: a whole model would initialise it
            parameter.normal_(std=0.02)
        block.gate.weight.copy_(weight)
    return block.train()


def step(layer, hidden_states):
    """Gradients to the hidden states and all weights; returns when the device is done."""
    layer.zero_grad(set_to_none=True)
    hidden_states = hidden_states.detach().requires_grad_()
    output = layer(hidden_states)
    output = output[0] if isinstance(output, tuple) else output
    output.backward(hidden_states.detach())
    if output.is_cuda:
        torch.cuda.synchronize()


def median_step(layer, hidden_states, repeats=5):
    """Seconds."""
    seconds = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        step(layer, hidden_states)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[1:])


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
