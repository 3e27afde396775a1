"""Scalars of a training run from its tensorboard events."""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

Curve = tuple[np.ndarray, np.ndarray]  # iterations, values


_TRAINED = "lm loss"  # a scalar of each training step that is logged


class RunLogError(ValueError):
    """A log that cannot be read, said in one line."""


@dataclass
class RunLog:
    """What a run logged.

    Attributes:
        curves: By tag: iterations and values. Where a training went on, or began anew, at an earlier
            iteration than the one before it had reached, the later training stands from there on.
        arguments: Megatron's arguments as text, where the events hold them.
        target_sparsity: ``1 - topk/experts``, or None for a run without ReLU routing.
    """

    curves: dict[str, Curve]
    arguments: dict[str, str] = field(default_factory=dict)
    target_sparsity: float | None = None

    def layers(self, name: str) -> dict[int, Curve]:
        """The per-layer curves ``moe/NAME_layer_N``, by layer."""
        pattern = re.compile(rf"moe/{re.escape(name)}_layer_(\d+)$")
        found = {int(m[1]): self.curves[tag] for tag in self.curves if (m := pattern.match(tag))}
        return dict(sorted(found.items()))

    def last(self, name: str) -> float:
        """Last value of a curve."""
        return float(self.curves[name][1][-1])


def read_scalars(folder: Path, target_sparsity: float | None = None) -> RunLog:
    """Read every event file under a folder, oldest first.

    Raises:
        RunLogError: If there are none, they hold no scalars, or lie in several folders.
    """
    files = sorted(folder.rglob("events.out.tfevents.*"), key=lambda p: p.name)
    if not files:
        raise RunLogError(f"{folder}: no tensorboard events there; train with --tensorboard-dir")
    if len(folders := sorted({file.parent for file in files})) > 1:
        raise RunLogError(
            f"{folder}: events of {len(folders)} runs there, in {folders[0].relative_to(folder)}, "
            f"{folders[1].relative_to(folder)} ...: name one run's folder, or several of them"
        )
    values: dict[str, dict[int, float]] = {}
    arguments: dict[str, str] = {}
    for file in files:
        events = EventAccumulator(str(file), size_guidance={"scalars": 0, "tensors": 0}).Reload()
        tags = events.Tags()["scalars"]
        if _TRAINED in tags:  # an evaluation alone logs one old step again
            first = min(e.step for e in events.Scalars(_TRAINED))
            values = {
                tag: {step: value for step, value in points.items() if step < first}
                for tag, points in values.items()
            }
        for tag in tags:
            values.setdefault(tag, {}).update({e.step: e.value for e in events.Scalars(tag)})
        arguments |= _texts(events)
    if not values:
        raise RunLogError(f"{folder}: the tensorboard events hold no scalars yet, or are damaged")
    curves = {tag: _curve(points) for tag, points in values.items() if points}
    if target_sparsity is None and "moe_relu_sparsity" in curves:
        target_sparsity = _target(arguments)
    return RunLog(curves, arguments, target_sparsity)


def _curve(points: dict[int, float]) -> Curve:
    steps = np.array(sorted(points))
    return steps, np.array([points[step] for step in steps])


def _texts(events: EventAccumulator) -> dict[str, str]:
    """Megatron writes each of its arguments as a text summary."""
    result = {}
    for tag in events.Tags()["tensors"]:
        if tag.endswith("/text_summary"):
            array = make_ndarray(events.Tensors(tag)[-1].tensor_proto)
            result[tag.removesuffix("/text_summary")] = array.item(0).decode()
    return result


def _target(arguments: dict[str, str]) -> float | None:
    try:
        return 1 - int(arguments["moe_router_topk"]) / int(arguments["num_experts"])
    except (KeyError, ValueError):
        return None
