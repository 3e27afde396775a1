"""What is there of a run: its scalars, its routing records, its routing maps."""

import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from remoe.analysis.counting import record_of
from remoe.analysis.maps import RoutingMaps
from remoe.analysis.record import RoutingRecord
from reporting.settings import Settings, method_name
from run_log.scalars import RunLog, RunLogError, read_scalars

_MOST_RECORDS = 60  # of a phase are read, evenly over the run: pictures have no more columns
_OWN_SCALARS = ("lm loss", "moe_relu_sparsity")  # one of which a run of pretrain_gpt.py has
ROUTING, ANALYSIS = "routing", "analysis"


@dataclass(frozen=True)
class Snapshot:
    """The small arrays of a `RoutingRecord`: by layer, or by layer and expert."""

    step: int
    num_tokens: int
    tokens_per_expert: np.ndarray
    experts_per_token: np.ndarray
    gate_sum: np.ndarray
    gate_max: np.ndarray

    @classmethod
    def of(cls, record: RoutingRecord) -> "Snapshot":
        """Those of a record."""
        arrays = {
            name: getattr(record, name) for name in cls.__dataclass_fields__ if name != "step"
        }
        return cls(step=record.step, **arrays | {"num_tokens": int(record.num_tokens)})


@dataclass
class Run:
    """A run by the name that it has in the page.

    Attributes:
        name: One of a kind in the page.
        folder: Where it is.
        log: Its scalars, None where it has no events.
        snapshots: Records over training, at most 60: of evaluations, of training steps or of the
            checkpoints' maps, whichever are most.
        record: The last one, whole: of an evaluation, else of training, else of maps.
        source: What `record` is of, in words.
        map_files: Routing maps by step.
    """

    name: str
    folder: Path
    log: RunLog | None
    snapshots: list[Snapshot]
    record: RoutingRecord | None
    source: str
    map_files: dict[int, Path]

    @property
    def settings(self) -> Settings:
        """From its stored arguments."""
        return Settings(self.log.arguments if self.log else {})

    @cached_property
    def maps(self) -> RoutingMaps | None:
        """Those of its last checkpoint."""
        return _load(RoutingMaps, self.map_files[max(self.map_files)]) if self.map_files else None

    def maps_at(self, step: int) -> RoutingMaps:
        """Those of a checkpoint."""
        return _load(RoutingMaps, self.map_files[step])

    @property
    def method(self) -> str:
        """Its method in words."""
        metas = [source.meta for source in (self.record, self.maps) if source is not None]
        return method_name(self.settings.method or next((m["method"] for m in metas), None)) or "–"

    @property
    def record_name(self) -> str:
        """What `record` is of, with its step."""
        return f"{self.source} at step {self.record.step:,}"

    @property
    def layers(self) -> list[int]:
        """Numbers of its MoE layers from 1, where a record or maps are there."""
        source = self.record or self.maps
        return [] if source is None else list(source.meta["moe_layers"])

    def curve(self, tag: str):
        """Steps and values of a scalar, or None."""
        return self.log.curves.get(tag) if self.log else None


def read_run(name: str, folder: Path) -> Run:
    """Read what is there of a run.

    Raises:
        RunLogError: There is no such folder, nothing of a run in it, a damaged file or another model's.
    """
    if not folder.is_dir():
        raise RunLogError(f"{folder}: no such folder; give a run's, which holds tensorboard events")
    training = _files(folder / ROUTING, "train-*.npz")
    evaluation = _files(folder / ROUTING, "valid-*.npz")
    map_files = {_step(path): path for path in _files(folder / ANALYSIS, "maps-*.npz")}
    has_events = next(folder.rglob("events.out.tfevents.*"), None) is not None
    if not has_events and not training and not evaluation and not map_files:
        raise RunLogError(
            f"{folder}: no tensorboard events, {ROUTING}/*.npz or {ANALYSIS}/maps-*.npz there; "
            "train with --tensorboard-dir"
        )
    steps, whole, source = _records(training, evaluation, list(map_files.values()))
    log = read_scalars(folder) if has_events else None
    if log and log.curves.keys().isdisjoint(_OWN_SCALARS) and not steps:
        raise RunLogError(
            f"{folder}: no scalar of a training run ({', '.join(_OWN_SCALARS)}) among its events, which "
            f"hold {', '.join(sorted(log.curves)[:3])}: are they of another program?"
        )
    _warn_of_steps_beyond(log, [*training, *evaluation, *map_files.values()])
    return Run(name, folder, log, steps, whole, source, map_files)


def _warn_of_steps_beyond(log: RunLog | None, files: list[Path]) -> None:
    """Of an earlier, longer training in the same folder they would pass for the end of this one."""
    if log is None or "lm loss" not in log.curves:
        return
    logged = log.curves["lm loss"][0]
    last, gap = logged[-1], logged[-1] - logged[max(len(logged) - 2, 0)]
    if beyond := [path for path in files if _step(path) > last + gap]:
        print(
            f"report.py: warning: {max(beyond, key=_step)} is of a later step than the last that was "
            f"logged, {last}: if an earlier training in this folder left it, move it away",
            file=sys.stderr,
        )


def _records(
    training: list[Path], evaluation: list[Path], maps: list[Path]
) -> tuple[list[Snapshot], RoutingRecord | None, str]:
    """Snapshots over training, the last record, what it is of."""
    kinds = (("Evaluation", evaluation), ("Training", training), ("Calibration text", maps))
    there = [(source, files) for source, files in kinds if files]
    if not there:
        return [], None, ""
    source, newest = there[0]
    over_steps = max((files for _, files in there), key=len)
    last = _record(newest[-1])
    return [_snapshot(path, last, newest[-1]) for path in _some(over_steps)], last, source


def _snapshot(path: Path, last: RoutingRecord, newest: Path) -> Snapshot:
    """Those of a file, if it is of the same layers and experts as the last one."""
    record = _record(path)
    if _form(record) != _form(last):
        raise RunLogError(
            f"{path}: of another model ({_form(record)}) than {newest.name} ({_form(last)}); "
            "move the older away"
        )
    return Snapshot.of(record)


def _form(record: RoutingRecord) -> str:
    layers = ", ".join(map(str, record.meta["moe_layers"]))
    return f"{record.num_experts} experts in layers {layers}"


def _record(path: Path) -> RoutingRecord:
    """A record, or the counts of maps."""
    if path.name.startswith("maps-"):
        return record_of(_load(RoutingMaps, path))
    return _load(RoutingRecord, path)


def _files(folder: Path, pattern: str) -> list[Path]:
    """In the order of steps."""
    return sorted(folder.glob(pattern), key=_step)


def _step(path: Path) -> int:
    digits = path.stem.rpartition("-")[2]
    if not digits.isdigit():
        raise RunLogError(f"{path}: its name does not end in a step, like {path.stem[:5]}-00000100")
    return int(digits)


def _some(files: list[Path]) -> list[Path]:
    """At most `_MOST_RECORDS`, evenly, the first and the last among them."""
    if len(files) <= _MOST_RECORDS:
        return files
    return [files[i] for i in np.linspace(0, len(files) - 1, _MOST_RECORDS).round().astype(int)]


def _load(kind: type, path: Path):
    try:
        return kind.load(path)
    except ValueError as error:
        raise RunLogError(f"{error}; move it away") from error
