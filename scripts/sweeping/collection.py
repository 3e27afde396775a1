"""All finished runs of a sweep, by configuration and seed."""

from dataclasses import dataclass, field
from pathlib import Path

from sweeping.errors import SweepError
from sweeping.measure import Measured, measure
from sweeping.runs import Run
from sweeping.statistics import Estimate, estimate, paired_difference
from sweeping.sweep_file import Sweep


@dataclass
class Configuration:
    """One configuration of a sweep.

    Attributes:
        run: One of its runs, for its settings.
        baseline: Name of the configuration that it is compared with, or None.
        seeds: Results by seed.
    """

    run: Run
    baseline: str | None
    seeds: dict[int, Measured] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the configuration."""
        return self.run.configuration

    @property
    def settings(self) -> dict[str, str]:
        """All settings but the seed."""
        return {key: value for key, value in self.run.settings.items() if key != "seed"}

    def losses(self) -> dict[int, float]:
        """Final validation loss by seed."""
        return {seed: measured.loss for seed, measured in self.seeds.items()}

    def mean(self, field_name: str) -> Estimate | None:
        """Mean of one of `Measured`'s numbers over the seeds that have it."""
        values = [getattr(measured, field_name) for measured in self.seeds.values()]
        return estimate([float(value) for value in values if value is not None])

    def num_settled(self) -> str | None:
        """How many of the ReLU-routed seeds reached their target; None where none is."""
        routed = [measured for measured in self.seeds.values() if measured.relu_routed]
        return f"{sum(m.settled is not None for m in routed)}/{len(routed)}" if routed else None


@dataclass
class Collection:
    """The results of a sweep.

    Attributes:
        sweep: It.
        configurations: By name, in the sweep's order.
        problems: Why a run is not among the results, by its name.
    """

    sweep: Sweep
    configurations: dict[str, Configuration]
    problems: dict[str, str]

    def difference(self, configuration: Configuration) -> Estimate | None:
        """Final validation loss against the baseline's, paired by seed; None without a baseline."""
        baseline = self.configurations.get(configuration.baseline or "")
        if baseline is None or baseline is configuration:
            return None
        return paired_difference(configuration.losses(), baseline.losses())


def collect(sweep: Sweep, runs_root: Path) -> Collection:
    """Read all runs of a sweep.

    Raises:
        SweepError: None is finished.
    """
    configurations: dict[str, Configuration] = {}
    problems = {}
    for run in sweep.runs:
        configuration = configurations.setdefault(
            run.configuration, Configuration(run, sweep.baseline_of(run))
        )
        try:
            configuration.seeds[run.seed] = measure(run, runs_root / sweep.family / run.name)
        except SweepError as error:
            problems[run.name] = str(error)
    if len(problems) == len(sweep.runs):
        name, reason = next(iter(problems.items()))
        raise SweepError(f"{sweep.name}: no run is finished ({name}: {reason})")
    return Collection(sweep, configurations, problems)
