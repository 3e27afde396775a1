"""Reads a sweep's YAML into its list of runs."""

import fnmatch
import itertools
import re
import textwrap
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from sweeping import vocabulary as words
from sweeping.errors import SweepError
from sweeping.runs import Run, make_run

KEYS = {
    "family",
    "size",
    "settings",
    "recording",
    "grids",
    "grid",
    "runs",
    "baseline",
    "slurm",
    "estimate",
    "about",
}
FAMILY_KEYS = {"size", "settings", "recording", "about"}


@dataclass(frozen=True)
class Sweep:
    """A sweep, checked.

    Attributes:
        name: The file's, or of a file `sweep.yaml` its folder's.
        family: Folder of its runs; sweeps with the same family file share runs.
        runs: Each once, in the file's order.
        family_settings: What all runs of the family share.
        baseline: Settings that make a configuration the one it is compared with; empty for none.
        slurm: Directives of sbatch.
        estimate: Assumptions of the estimate of GPU hours.
    """

    name: str
    family: str
    runs: list[Run]
    family_settings: dict[str, str]
    baseline: dict[str, str]
    slurm: dict = field(default_factory=dict)
    estimate: dict = field(default_factory=dict)

    def baseline_of(self, run: Run) -> str | None:
        """The configuration with the baseline's settings and else the run's; None if no run is it."""
        if not self.baseline:
            return None
        other = make_run(self.family_settings, run.settings | self.baseline)
        known = {run.configuration for run in self.runs}
        return other.configuration if other.configuration in known else None

    def only(self, patterns: list[str] | None) -> "Sweep":
        """The sweep with the runs alone whose names fit one of the patterns (* and ?); None: all.

        Raises:
            SweepError: A pattern fits none.
        """
        if patterns is None:
            return self
        for pattern in patterns:
            if not any(fnmatch.fnmatch(run.name, pattern) for run in self.runs):
                raise SweepError(f"--only {pattern}: no such run; --dry-run lists them")
        fitting = [run for run in self.runs if any(fnmatch.fnmatch(run.name, p) for p in patterns)]
        return replace(self, runs=fitting)


def read_sweep(path: Path) -> Sweep:
    """Read and check a sweep.

    Raises:
        SweepError: Naming the file and the key.
    """
    try:
        return _read(path)
    except SweepError as error:
        raise SweepError(f"{path}: {error}") from None


def _read(path: Path) -> Sweep:
    document = _mapping(_load(path), "the file")
    _only(document, KEYS, "the file")
    name = path.parent.name if path.stem == "sweep" else path.stem
    family = _family(document, path, name)
    if re.search(r"\s", family["name"]):
        raise SweepError(f"the recipes take no spaces in a path: rename {family['name']!r}")
    own = _with_size(document)
    recording = family["recording"] | _recording(document)
    runs: dict[str, Run] = {}
    for where, settings in _expanded(document):
        try:
            run = make_run(family["settings"], own | settings, recording)
        except SweepError as error:
            raise SweepError(f"{where}: {error}") from None
        if runs.setdefault(run.name, run).settings != run.settings:
            raise SweepError(f"{where}: two runs of different settings are named {run.name}")
    slurm = _mapping(document.get("slurm", {}), "slurm")
    estimate = _mapping(document.get("estimate", {}), "estimate")
    baseline = _settings(document.get("baseline"), "baseline")
    if "seed" in baseline:
        raise SweepError("baseline: seed: each seed is compared with its own: leave it out")
    sweep = Sweep(
        name, family["name"], list(runs.values()), family["settings"], baseline, slurm, estimate
    )
    if baseline and not any(sweep.baseline_of(run) for run in sweep.runs):
        raise SweepError(f"baseline: no run of the sweep has {baseline}")
    return sweep


class _EachKeyOnce(yaml.SafeLoader):
    """Of a key that stands twice, YAML's own loader keeps the last: half of a sweep would be gone."""

    def compose_mapping_node(self, anchor):
        """Refuse a key that stands twice."""
        node = super().compose_mapping_node(anchor)
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key, _ in node.value:
            if keys.count(key.value) > 1:
                line = key.start_mark.line + 1
                raise SweepError(f"line {line}: {key.value} stands twice: write one list of both")
        return node


def _load(path: Path) -> object:
    try:
        return yaml.load(path.read_text(), _EachKeyOnce)
    except OSError as error:
        raise SweepError(error.strerror) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f"line {mark.line + 1}: " if mark else ""
        raise SweepError(f"{at}no YAML: {getattr(error, 'problem', error)}") from None


def _family(document: dict, path: Path, name: str) -> dict:
    """Name, settings and recording that the runs share: a file of its own, or the sweep itself."""
    if "family" not in document:
        return {"name": name, "settings": _with_size(document), "recording": {}}
    if not isinstance(document["family"], str):
        raise SweepError(f"family must be a path of a YAML file, got {document['family']!r}")
    file = path.parent / document["family"]
    try:
        loaded = _mapping(_load(file), "the file")
        _only(loaded, FAMILY_KEYS, "the file")
        return {"name": file.stem, "settings": _with_size(loaded), "recording": _recording(loaded)}
    except SweepError as error:
        raise SweepError(f"family {document['family']}: {error}") from None


def _with_size(document: dict) -> dict[str, str]:
    """The settings, with the size that stands beside them."""
    settings = _settings(document.get("settings"), "settings")
    size = {"size": document["size"]} if "size" in document else {}
    return _settings(size, "the file") | settings


def _expanded(document: dict):
    """Every combination of each grid, then the listed runs: where it stands, its settings."""
    grids = document.get("grids", [])
    if not isinstance(grids, list):
        raise SweepError("grids must be a list of grids")
    named = [(f"grids[{i}]", grid) for i, grid in enumerate(grids)]
    if "grid" in document:
        named.insert(0, ("grid", document["grid"]))
    listed = document.get("runs", [])
    if not isinstance(listed, list):
        raise SweepError("runs must be a list of runs")
    if not named and not listed:
        raise SweepError("grids, grid or runs must name at least one run")
    for where, grid in named:
        yield from _crossed(where, _mapping(grid, where))
    for i, settings in enumerate(listed):
        yield f"runs[{i}]", _settings(settings, f"runs[{i}]")


def _crossed(where: str, grid: dict):
    if not grid:
        raise SweepError(f"{where} is empty")
    axes = []
    for key, values in grid.items():
        key = words.check_key(key, where)
        values = values if isinstance(values, list) else [values]
        if not values:
            raise SweepError(f"{where}.{key} is empty")
        axes.append([(key, words.check_value(key, value, where)) for value in values])
    for combination in itertools.product(*axes):
        yield where, dict(combination)


def _settings(mapping: object, where: str) -> dict[str, str]:
    checked = {}
    for key, value in _mapping(mapping or {}, where).items():
        key = words.check_key(key, where)
        if isinstance(value, list):
            raise SweepError(f"{where}.{key} is a list; lists stand in grids")
        checked[key] = words.check_value(key, value, where)
    return checked


def _recording(document: dict) -> dict[str, str]:
    recording = _settings(document.get("recording"), "recording")
    for key in recording:
        if not words.only_records(key):
            raise SweepError(
                f"recording: {key} may change what a run computes: write it in settings"
            )
    return recording


def _mapping(value: object, where: str) -> dict:
    if not isinstance(value, dict):
        got = textwrap.shorten(repr(value), 80)
        raise SweepError(f"{where} must be a mapping of names to values, got {got}")
    return value


def _only(mapping: dict, known: set[str], where: str) -> None:
    for key in mapping:
        if key not in known:
            raise SweepError(f"{where}: unknown key {key!r}; known are {', '.join(sorted(known))}")
