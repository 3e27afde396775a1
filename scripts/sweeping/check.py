"""Whether a repeated study has the direction of the recorded one."""

import json
from dataclasses import dataclass
from pathlib import Path

from sweeping.collection import Collection
from sweeping.errors import SweepError
from sweeping.table import rows_of

_NEEDED = ("difference", "difference_low95", "difference_high95")  # of a row
MARGIN = 0.5  # of the recorded difference: less, even with the same sign, is another result


@dataclass(frozen=True)
class Verdict:
    """One difference, then and now.

    Attributes:
        text: A line for the reader.
        holds: Whether the new one has the recorded sign and at least `MARGIN` of its size; None where
            the recorded interval holds zero, or is missing (one seed): there is no direction to repeat.
    """

    text: str
    holds: bool | None


def check(collection: Collection, recorded: Path) -> list[Verdict]:
    """Compare every difference of a sweep that the recorded results have too.

    Args:
        collection: The new results.
        recorded: results.json of an earlier collection.

    Raises:
        SweepError: `recorded` cannot be read, has no difference of this sweep, or a difference of
            configurations with the same name and other settings.
    """
    earlier, settings = _read(recorded)
    verdicts = []
    for row in rows_of(collection):
        before = earlier.get((row["configuration"], row["baseline"]))
        if before is None or row["difference"] is None or before["difference"] is None:
            continue
        for name in (row["configuration"], row["baseline"]):
            ours = collection.configurations[name].settings
            if changed := _changed(settings.get(name, ours), ours):
                raise SweepError(f"--check {recorded}: {name} is recorded with {changed}")
        verdicts.append(_verdict(row, before))
    if not any(verdict.holds is not None for verdict in verdicts):
        raise SweepError(
            f"--check {recorded}: it has no difference with a sign that this sweep has too"
        )
    return verdicts


def _read(recorded: Path) -> tuple[dict[tuple, dict], dict[str, dict]]:
    """The rows by configuration and baseline, and the settings by configuration, where they are kept."""
    try:
        results = json.loads(recorded.read_text())
        rows = {(row["configuration"], row["baseline"]): row for row in results["table"]}
        lacking = [key for row in rows.values() for key in _NEEDED if key not in row]
        settings = {name: dict(found) for name, found in results.get("settings", {}).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SweepError(f"--check {recorded}: no results of a sweep ({error})") from None
    if lacking:
        raise SweepError(f"--check {recorded}: no results of a sweep (a row lacks {lacking[0]})")
    return rows, settings


def _changed(then: dict[str, str], now: dict[str, str]) -> str:
    keys = sorted(key for key in then.keys() | now.keys() if then.get(key) != now.get(key))
    return "; ".join(f"{key} {then.get(key, 'none')}, here {now.get(key, 'none')}" for key in keys)


def _verdict(row: dict, before: dict) -> Verdict:
    now, then = row["difference"], before["difference"]
    low, high = before["difference_low95"], before["difference_high95"]
    pair = f"{row['configuration']} minus {row['baseline']}: {now:+.4f}, recorded {then:+.4f}"
    if low is None or low <= 0 <= high:
        return Verdict(
            f"{pair}: the recorded interval holds zero or is missing, nothing to repeat", None
        )
    holds = now * then > 0 and abs(now) >= MARGIN * abs(then)
    needed = f"needed {'at most' if then < 0 else 'at least'} {MARGIN * then:+.4f}"
    return Verdict(f"{pair}, {needed}: {'holds' if holds else 'DOES NOT HOLD'}", holds)
