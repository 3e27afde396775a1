"""A child of training_step.py: a plain torch loop over a model of transformers, step by step in turns.

Before the first turn it tries the implementations of experts and of AdamW that run here, and takes the
fastest of each.
"""

import itertools
import json
import statistics
import sys
import time

import torch
import transformers
from hugging_face_experts import choose_experts
from peak_memory import PeakMemory
from random_corpus import read_batches
from turns import Turns

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
OPTIMIZERS = ("fused", "foreach")


def main(kind, settings, sequences, corpus, bf16):
    """Train until there is no turn to come.

    Args:
        kind: "Mixtral" or "Llama".
        settings: Of its configuration.
        sequences: Of a step.
        corpus: Prefix of the ids.
        bf16: Whether weights, gradients and the optimizer's state are bf16.
    """
    config = getattr(transformers, f"{kind}Config")(**settings)
    turns = Turns()
    turns.count_memory(PeakMemory())
    turns.facts["threads"] = torch.get_num_threads()
    torch.manual_seed(1234)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).to(DEVICE)
    model = model.to(torch.bfloat16 if bf16 else torch.float32).train()
    ids = read_batches(corpus, sequences, config.max_position_embeddings)
    batches = itertools.cycle(torch.from_numpy(ids).to(DEVICE))
    optimizer, facts = choose(model, batches)
    turns.facts |= {"parameters": sum(p.numel() for p in model.parameters()), **facts}
    while True:
        turns.take(lambda: step(model, optimizer, next(batches)), lambda loss: {"loss": loss})


def step(model, optimizer, ids):
    """Forward, backward, clipping, AdamW; the loss, for which the device is waited."""
    optimizer.zero_grad()
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def choose(model, batches):
    """The fastest optimizer, and what was chosen; the model then has its fastest experts."""
    optimizers = {name: adamw(model, name) for name in OPTIMIZERS}
    facts = {}
    if hasattr(model.config, "num_local_experts"):
        facts["experts"] = choose_experts(
            model.config,
            next(batches).numel(),
            lambda: median_step(model, optimizers["fused"], batches),
        )
    seconds = {name: median_step(model, value, batches) for name, value in optimizers.items()}
    facts["AdamW"] = min(seconds, key=seconds.get)
    return optimizers[facts["AdamW"]], facts


def adamw(model, name):
    """Megatron's defaults."""
    return torch.optim.AdamW(
        model.parameters(), lr=1e-3, betas=(0.9, 0.999), weight_decay=0.01, **{name: True}
    )


def median_step(model, optimizer, batches, repeats=5):
    """Seconds of the median step."""
    seconds = []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        step(model, optimizer, next(batches))
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[1:])


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
