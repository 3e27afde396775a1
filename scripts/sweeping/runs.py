"""One run of a sweep: its settings, its name, the environment of the recipe that trains it."""

import hashlib
import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from sweeping import vocabulary as words
from sweeping.errors import SweepError

SHORT = {"lambda_0": "lambda", "alpha": "alpha"}


@dataclass(frozen=True)
class Run:
    """One launch.

    Attributes:
        name: Its folder; a function of the family's settings and of its own.
        configuration: The name without the seed.
        settings: All settings that its method has, as text.
        recording: Settings of what is kept of it, which do not change what it computes.
    """

    name: str
    configuration: str
    settings: dict[str, str]
    recording: dict[str, str] = field(default_factory=dict)

    @property
    def size(self) -> str:
        """Which recipe."""
        return self.settings["size"]

    @property
    def seed(self) -> int:
        """Seed of the weights and of the order of the data."""
        return int(self.settings["seed"])

    @property
    def gpus_per_node(self) -> int:
        """Processes of each node: the recipe's, if the sweep does not say."""
        return int(self.settings.get("gpus", 1 if self.size in words.ONE_RECIPE_FOR_ALL else 8))

    @property
    def script(self) -> Path:
        """The recipe, relative to the repository."""
        method = words.OF_THE_RECIPES.get(self.settings["method"], self.settings["method"])
        suffix = "" if self.size in words.ONE_RECIPE_FOR_ALL else f"_{method}"
        return Path("scripts") / f"train_llama_{self.size}{suffix}.sh"

    def environment(self) -> dict[str, str]:
        """What the recipe reads of the settings, without the places of the run."""
        data = {"DATA_PATH": blend_of(self.settings["blend"])} if "blend" in self.settings else {}
        return self.environment_without_data() | data

    def environment_without_data(self) -> dict[str, str]:
        """The same, of a machine that need not have the data."""
        result = {}
        if self.size in words.ONE_RECIPE_FOR_ALL:
            method = self.settings["method"]
            result["METHOD"] = words.OF_THE_RECIPES.get(method, method)
        flags = []
        for key, value in (self.settings | self.recording).items():
            if key.startswith("--"):
                flags += [key, value] if value else [key]
            elif key in words.VARIABLES:
                result[words.VARIABLES[key][0]] = value
            elif key not in words.OTHER_WORDS:
                result[key] = value
        return result | ({"EXTRA_ARGS": " ".join(flags)} if flags else {})

    def fingerprint(self) -> str:
        """Changes with any setting, but not with what is recorded."""
        others = {key: value for key, value in self.settings.items() if key != "size"}
        text = json.dumps([self.size, others], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def blend_of(folder: str) -> str:
    """All indexed data sets in a folder of the repository (or of an absolute path), with equal weights.

    Raises:
        SweepError: There are none.
    """
    names = sorted(file.stem for file in (words.REPO / folder).glob("*.idx"))
    if not names:
        raise SweepError(f"blend {folder}: no indexed data set (*.idx) there: build the data first")
    return " ".join(f"1 {Path(folder) / name}" for name in names)


def make_run(
    family: dict[str, str], own: dict[str, str], recording: dict[str, str] | None = None
) -> Run:
    """Name a run.

    Args:
        family: Settings that all runs of the family have unless they say otherwise.
        own: Settings over the family's.
        recording: As in `Run`.

    Raises:
        SweepError: It has no method or no size, or no recipe trains this method at this size.
    """
    merged = words.DEFAULTS | family | own
    for key in ("size", "method"):
        if key not in merged:
            raise SweepError(f"a run has no {key}")
    method = merged["method"]
    settings = {key: merged[key] for key in sorted(merged) if words.has_setting(method, key)}
    recording = {key: v for key, v in (recording or {}).items() if words.has_setting(method, key)}
    configuration = _configuration(settings, family)
    run = Run(f"{configuration}_s{settings['seed']}", configuration, settings, recording)
    if not (words.REPO / run.script).exists():
        raise SweepError(f"{run.name}: size {run.size} has no recipe for {method} ({run.script})")
    return run


def _configuration(settings: dict[str, str], family: dict[str, str]) -> str:
    """Method and shape always, and of all else what differs from the family."""
    if settings["method"] == "dense":
        parts = ["dense", f"x{settings['expansion']}"]
    else:
        parts = [settings["method"], *(f"{key}{settings[key]}" for key in words.ONLY_ROUTED)]
    if settings["size"] != family.get("size"):
        parts.insert(0, settings["size"])
    told = {"size", "method", "seed", *words.ONLY_ROUTED, *words.ONLY_DENSE}
    for key, value in settings.items():
        if key not in told and value != family.get(key):
            word = SHORT.get(key, key.removeprefix("--"))
            parts.append(
                re.sub(
                    r"[^A-Za-z0-9.+=-]+", "-", f"{word}{'-' if key.startswith('--') else ''}{value}"
                )
            )
    return "_".join(part.rstrip("-") for part in parts)


def command_of(run: Run, runs_root: Path, family: str, extra: list[str] | None = None) -> list[str]:
    """The command that trains a run, from the repository's root; all that matters is in its words."""
    environment = run.environment()
    environment |= {"RUN_ROOT": str(runs_root), "PROJECT": family, "RUN_NAME": run.name}
    if extra:
        environment["EXTRA_ARGS"] = " ".join([environment.get("EXTRA_ARGS", ""), *extra]).strip()
    folder = str(runs_root / family / run.name)
    environment = {name: value.replace("{run}", folder) for name, value in environment.items()}
    assignments = [f"{name}={value}" for name, value in sorted(environment.items())]
    return ["env", *assignments, "bash", str(run.script)]


def shown(command: list[str]) -> str:
    """A command as a shell reads it."""
    return shlex.join(command)
