"""Made-up runs for the tests of the report: events, records and maps of routing that a formula draws."""

from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from remoe.analysis.maps import RoutingMaps, pack
from remoe.analysis.record import RoutingRecord

LAYERS, EXPERTS, VOCABULARY = 3, 4, 40
DOMAINS = ["code", "prose"]
STEPS = (10, 20, 30)
_SEQUENCES, _LENGTH = 8, 16
_FOLLOWED = 5


def write_events(folder: Path, method: str = "relu", tokenizer: str | None = None) -> None:
    """Scalars of 30 steps, each logged; stage I is 5 steps long, stage II 10."""
    writer = SummaryWriter(str(folder / "tensorboard"))
    arguments = {
        "num_experts": None if method == "dense" else EXPERTS,
        "moe_router_topk": 1,
        "moe_granularity": 1,
        "moe_relu_routing": method == "relu",
        "moe_router_load_balancing_type": "none" if method == "relu" else "aux_loss",
        "num_layers": LAYERS,
        "hidden_size": 32,
        "seed": 7,
        "global_batch_size": 8,
        "seq_length": 100,
        "tokenizer_model": tokenizer,
    }
    for name, value in arguments.items():
        writer.add_text(name, str(value))
    for step in range(1, 31):
        writer.add_scalar("lm loss", 8 - 0.1 * step, step)
        writer.add_scalar("tokens-per-second", 1000 + step, step)
        if step % 10 == 0:
            writer.add_scalar("lm loss validation", 8.5 - 0.1 * step, step)
        if method == "relu":
            _write_routing_scalars(writer, step)
    writer.close()


def _write_routing_scalars(writer: SummaryWriter, step: int) -> None:
    sparsity = 0.4 if step <= 5 else 0.6 if step <= 15 else 0.75
    writer.add_scalar("moe_relu_sparsity", sparsity, step)
    writer.add_scalar("moe_relu_l1_reg_coeff", 1e-8 * 1.2**step, step)
    writer.add_scalar("moe_relu_active_experts", EXPERTS * (1 - sparsity), step)
    writer.add_scalar("moe_relu_dead_experts", 0, step)
    writer.add_scalar("moe_relu_tokens_without_expert", 0.3, step)
    for layer in range(LAYERS):
        active = EXPERTS * (1 - sparsity) + 0.1 * layer
        writer.add_scalar(f"moe/moe_relu_active_experts_layer_{layer}", active, step)


def make_maps(step: int, method: str = "relu", vocabulary: int = VOCABULARY) -> RoutingMaps:
    """Maps of a text in two domains: an expert's gate depends on domain, token and step."""
    random = np.random.default_rng(0)  # the text and most of the gates are the same at every step
    token_ids = np.minimum(random.zipf(1.5, (_SEQUENCES, _LENGTH)) - 1, vocabulary - 1)
    domains = np.arange(_SEQUENCES) % 2
    logits = random.normal(size=(LAYERS, token_ids.size, EXPERTS))
    logits += 0.8 * np.eye(EXPERTS)[np.repeat(domains, _LENGTH)]
    logits += 0.3 * np.random.default_rng(step).normal(size=logits.shape)
    chosen = logits > 0.9 if method == "relu" else logits == logits.max(-1, keepdims=True)
    meta = {
        "format": 1,
        "step": step,
        "run": "made up",
        "method": method,
        "topk": 1,
        "num_experts": EXPERTS,
        "moe_layers": list(range(1, LAYERS + 1)),
        "domain_names": DOMAINS,
        "vocab_size": vocabulary,
    }
    gates = np.where(chosen, np.abs(logits), 0).astype(np.float16)
    return RoutingMaps(
        meta, token_ids.astype(np.int32), domains.astype(np.int32), pack(chosen), gates
    )


def make_record(step: int, phase: str, method: str = "relu") -> RoutingRecord:
    """The counts of the maps of a step, as the recorder would have them."""
    maps = make_maps(step, method)
    chosen, ids = maps.routing_map(), maps.token_ids.ravel()
    gates, domains = maps.gates.astype(np.float64), maps.token_domains()
    active = chosen.sum(-1)
    followed = np.arange(_FOLLOWED)
    shared = ("format", "step", "method", "topk", "moe_layers", "domain_names", "vocab_size")
    return RoutingRecord(
        meta={name: maps.meta[name] for name in shared} | {"phase": phase, "num_steps": 1},
        num_tokens=np.int64(ids.size),
        tokens_per_expert=chosen.sum(1),
        experts_per_token=np.stack([np.bincount(row, minlength=EXPERTS + 1) for row in active]),
        gate_sum=gates.sum(1),
        gate_square_sum=(gates**2).sum(1),
        gate_max=gates.max(1).astype(np.float32),
        domain_tokens=np.bincount(domains, minlength=len(DOMAINS)),
        domain_tokens_per_expert=_sums(chosen, domains, range(len(DOMAINS))),
        token_count=np.bincount(ids, minlength=VOCABULARY),
        token_active=np.stack([active[:, ids == i].sum(1) for i in range(VOCABULARY)]),
        token_expert_ids=followed,
        token_tokens_per_expert=_sums(chosen, ids, followed),
    )


def _sums(chosen: np.ndarray, groups: np.ndarray, names) -> np.ndarray:
    return np.stack([chosen[:, groups == name].sum(1) for name in names])


def write_run(folder: Path, method: str = "relu", tokenizer: str | None = None) -> Path:
    """A whole run: events, records of training and evaluation, maps of three checkpoints."""
    write_events(folder, method, tokenizer)
    for step in STEPS:
        for phase in ("train", "valid"):
            record = make_record(step, phase, method)
            record.save(folder / "routing" / f"{phase}-{step:08d}.npz")
        make_maps(step, method).save(folder / "analysis" / f"maps-{step:08d}.npz")
    return folder
