"""Configurations that differ in one setting alone: the lines of a figure."""

from dataclasses import dataclass

from sweeping.collection import Collection, Configuration
from sweeping.looks import label_of

# Where and in which pieces a model is trained: no part of what it is.
LAYOUT = ("gpus", "micro_batch", "TP", "PP", "CP", "EP", "RECOMPUTE")


@dataclass(frozen=True)
class Series:
    """A line of a figure.

    Attributes:
        label: Method, and what tells this line from the others.
        points: Value of the setting and configuration, by rising value.
    """

    label: str
    points: list[tuple[float, Configuration]]


def series_over(collection: Collection, key: str) -> list[Series]:
    """Lines over at least two values of a setting, all else equal, of configurations with results."""
    groups: dict[tuple, list[Configuration]] = {}
    for configuration in collection.configurations.values():
        settings = configuration.run.settings
        if key in settings and configuration.seeds:
            apart = {key, "seed", *LAYOUT}
            rest = tuple(sorted((k, v) for k, v in settings.items() if k not in apart))
            groups.setdefault(rest, []).append(configuration)
    lines = [group for group in groups.values() if len(group) > 1]
    told = _differing(lines, key)
    return [
        Series(
            label_of(line[0].run, told),
            sorted(((float(c.run.settings[key]), c) for c in line), key=lambda point: point[0]),
        )
        for line in lines
    ]


def _differing(lines: list[list[Configuration]], key: str) -> list[str]:
    """Settings of which the lines of one method have several values."""
    told = set()
    for method in {line[0].run.settings["method"] for line in lines}:
        all_settings = [s for line in lines if (s := line[0].run.settings)["method"] == method]
        keys = {k for settings in all_settings for k in settings} - {key, "seed", *LAYOUT}
        told |= {k for k in keys if len({settings.get(k) for settings in all_settings}) > 1}
    return sorted(told)
