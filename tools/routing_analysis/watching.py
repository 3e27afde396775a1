"""Runs a model over the calibration text and notes what its routers choose."""

import re
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evaluation.errors import EvaluationError
from evaluation.layers import MoELayer, find_moe_layers
from evaluation.models import MEGATRON, LoadedModel
from remoe.analysis.maps import FORMAT, RoutingMaps, pack
from routing_analysis.calibration import Calibration

TOKENS_AT_ONCE = 4096
MOST_GATES = 64 * 2**20  # bytes of all gates; beyond them they are left out
_LAYER = re.compile(r"layers\.(\d+)\.")


@torch.no_grad()
def watch(
    loaded: LoadedModel, calibration: Calibration, about: dict, batch_size: int | None = None
) -> RoutingMaps:
    """The routing maps of a model on a text.

    Args:
        loaded: The model.
        calibration: The text.
        about: `run`, `step`, `method` and `topk` of the maps' `meta`.
        batch_size: Sequences at once, where a router looks at other tokens of its batch; default about
            `TOKENS_AT_ONCE` tokens.

    Raises:
        EvaluationError: If the model is dense, or its vocabulary is not the text's.
    """
    model, token_ids = loaded.model, calibration.token_ids
    layers = find_moe_layers(model)
    _check(loaded, layers, calibration)
    num_experts = layers[0].num_experts
    shape = (len(layers), token_ids.size, num_experts)
    maps = np.zeros((*shape[:2], -(-num_experts // 8)), np.uint8)
    gates = np.zeros(shape, np.float16) if 2 * np.prod(shape) <= MOST_GATES else None
    losses = np.full(token_ids.shape, np.nan, np.float32)
    rows_at_once = batch_size or max(1, TOKENS_AT_ONCE // token_ids.shape[1])
    for first in range(0, len(token_ids), rows_at_once):
        rows = torch.from_numpy(token_ids[first : first + rows_at_once]).long().to(model.device)
        at = slice(first * token_ids.shape[1], (first + len(rows)) * token_ids.shape[1])
        seen = _forward(loaded, layers, rows, losses[first : first + len(rows)])
        for layer, (gate, active) in enumerate(seen):
            maps[layer, at] = pack(active)
            if gates is not None:
                gates[layer, at] = gate
    meta = {
        "format": FORMAT,
        **about,
        "num_experts": num_experts,
        "moe_layers": [_number(layer.name) for layer in layers],
        "domain_names": calibration.names,
        "vocab_size": model.config.vocab_size,
    }
    return RoutingMaps(meta, token_ids, calibration.domains, maps, gates, losses)


def _check(loaded: LoadedModel, layers: list[MoELayer], calibration: Calibration) -> None:
    if not layers:
        raise EvaluationError("the model is dense: it has no routing to analyse")
    if len({layer.num_experts for layer in layers}) > 1:
        raise EvaluationError("the model's layers differ in their number of experts")
    largest, size = int(calibration.token_ids.max()), loaded.model.config.vocab_size
    if largest >= size:
        raise EvaluationError(
            f"{calibration.source}: has token id {largest}, and the model {size} tokens: give text "
            "by --text, with the tokenizer that the model was trained with"
        )
    length = calibration.token_ids.shape[1]
    if length > loaded.max_length:
        raise EvaluationError(
            f"--sequence-length {length}: the model was trained on {loaded.max_length} at most"
        )


def _forward(
    loaded: LoadedModel, layers: list[MoELayer], rows: Tensor, losses: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Run a batch: fill in its losses, give gates and map of each layer in the order of the text."""
    seen: list[tuple[np.ndarray, np.ndarray]] = [(np.empty(0), np.empty(0))] * len(layers)

    def note(index: int) -> Callable:
        def hook(router: nn.Module, inputs: tuple, output: tuple) -> None:
            seen[index] = tuple(
                _in_order(values, rows, loaded.form == MEGATRON)
                for values in gates_and_map(output, layers[index].num_experts)
            )

        return hook

    handles = [layer.router.register_forward_hook(note(i)) for i, layer in enumerate(layers)]
    try:
        logits = loaded.model(rows).logits[:, :-1].float()
    finally:
        for handle in handles:
            handle.remove()
    found = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="none")
    losses[:, :-1] = found.view(len(rows), -1).cpu().numpy()
    return seen


def _in_order(values: Tensor, rows: Tensor, sequence_first: bool) -> np.ndarray:
    batch, length = rows.shape
    if sequence_first:  # [s * b, E] -> [b * s, E]
        values = values.view(length, batch, -1).transpose(0, 1).flatten(0, 1)
    return values.cpu().numpy()


def gates_and_map(output: tuple, num_experts: int) -> tuple[Tensor, Tensor]:
    """What a router decided, whatever it says it in.

    Args:
        output: Of a router: ends in gates and bool map, ``[T, E]`` each, or in the weights and the
            indices of k experts, ``[T, k]`` each.
        num_experts: E.

    Returns:
        Gates fp32, 0 where not active, and the map, ``[T, E]`` each.
    """
    weights, chosen = (values.detach().flatten(0, -2) for values in output[-2:])
    weights = weights.float()
    if chosen.dtype == torch.bool:
        return weights * chosen, chosen
    empty = torch.zeros(len(chosen), num_experts, device=chosen.device)
    routing_map = empty.scatter(1, chosen, 1.0).bool()
    if weights.shape != chosen.shape:  # of all experts
        return weights * routing_map, routing_map
    return empty.scatter(1, chosen, weights), routing_map


def _number(name: str) -> int:
    """Number of a layer in the model, from 1."""
    return int(_LAYER.search(f"{name}.")[1]) + 1
