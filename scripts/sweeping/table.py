"""The table of a sweep: CSV, Markdown, and JSON with every seed."""

import csv
import io
import json

from run_log.methods import METHOD_NAMES
from sweeping.collection import Collection, Configuration
from sweeping.markdown import markdown_row
from sweeping.statistics import Estimate

# Settings that vary in a sweep get columns; these in this order, then the others by name.
FIRST = ("method", "size", "expansion", "E", "k", "G", "lambda_0", "alpha")


def varied_settings(collection: Collection) -> list[str]:
    """Settings of which the configurations that have them have several values, and the method."""
    values: dict[str, set[str]] = {}
    for configuration in collection.configurations.values():
        for key, value in configuration.run.settings.items():
            values.setdefault(key, set()).add(value)
    varied = {key for key in values.keys() - {"seed"} if len(values[key]) > 1} | {"method"}
    return [key for key in FIRST if key in varied] + sorted(varied - set(FIRST))


def rows_of(collection: Collection) -> list[dict]:
    """One row a configuration: plain numbers, None where there is none.

    Losses in nats a token, times in seconds, settling in steps; `difference` is against `baseline`,
    paired by seed, with Student's 95% interval.
    """
    return [_row(collection, c) for c in collection.configurations.values()]


def _row(collection: Collection, configuration: Configuration) -> dict:
    settings = configuration.run.settings
    row: dict = {"configuration": configuration.name}
    row |= {key: settings.get(key) for key in varied_settings(collection)}
    row["seeds"] = len(configuration.seeds)
    row |= _columns("validation_loss", configuration.mean("loss"))
    difference = collection.difference(configuration)
    row["baseline"] = configuration.baseline if difference else None
    row |= _columns("difference", difference)
    low, high = (difference.interval() if difference else None) or (None, None)
    row |= {"difference_low95": low, "difference_high95": high}
    row["pairs"] = difference.count if difference else None
    for name in ("active_experts", "sparsity"):
        row |= _columns(name, configuration.mean(name))
    row |= _columns("settled_step", configuration.mean("settled"))
    row["settled_seeds"] = configuration.num_settled()
    row |= _columns("wall_seconds", configuration.mean("wall_seconds"))
    return row


def _columns(name: str, value: Estimate | None) -> dict:
    return {name: value and value.mean, f"{name}_error": value and value.error}


def as_csv(collection: Collection) -> str:
    """The rows as CSV, full precision, empty where there is no number."""
    rows = rows_of(collection)
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_json(collection: Collection) -> str:
    """The rows, and below them every seed, with commit, hardware and date."""
    seeds = {
        configuration.name: {
            str(seed): {
                "validation_loss": m.loss,
                "validation": dict(
                    zip(m.validation[0].tolist(), m.validation[1].tolist(), strict=True)
                ),
                "sparsity": m.sparsity,
                "active_experts": m.active_experts,
                "settled_step": m.settled,
                "wall_seconds": m.wall_seconds,
                **m.origin,
            }
            for seed, m in configuration.seeds.items()
        }
        for configuration in collection.configurations.values()
    }
    report = {
        "sweep": collection.sweep.name,
        "table": rows_of(collection),
        "settings": {c.name: c.settings for c in collection.configurations.values()},
        "runs": seeds,
        "missing": collection.problems,
    }
    return json.dumps(report, indent=1) + "\n"


def as_markdown(collection: Collection) -> str:
    """The rows for a reader: mean ± standard error, differences with their interval."""
    rows = rows_of(collection)
    settings = varied_settings(collection)
    head = [*settings, "seeds", "validation loss (nats a token)"]
    compared = any(row["difference"] is not None for row in rows)
    head += ["minus baseline [95% interval]"] if compared else []
    shown = [
        (name, title, digits)
        for name, title, digits in (
            ("active_experts", "active experts", 3),
            ("sparsity", "sparsity", 4),
            ("settled_step", "settled at step", 0),
            ("wall_seconds", "wall time (s)", 0),
        )
        if any(row[name] is not None for row in rows)
    ]
    head += [title for _, title, _ in shown]
    lines = [
        markdown_row(head),
        markdown_row(["---"] * len(settings) + ["---:"] * (len(head) - len(settings))),
    ]
    for row in rows:
        cells = [METHOD_NAMES[row["method"]], *(row[key] or "" for key in settings[1:])]
        cells += [
            row["seeds"],
            _cell(row, "validation_loss", 4),
        ]
        cells += [_difference(row)] if compared else []
        cells += [
            _cell(row, name, digits, row["settled_seeds"] if name == "settled_step" else "")
            for name, _, digits in shown
        ]
        lines.append(markdown_row(cells))
    lines += _notes(collection, rows)
    return "\n".join(lines) + "\n"


def _cell(row: dict, name: str, digits: int, settled: str | None = "") -> str:
    note = "" if not settled or len(set(settled.split("/"))) == 1 else f" ({settled} seeds)"
    if row[name] is None:
        return f"never{note}" if note else ""
    error = row[f"{name}_error"]
    return (
        f"{row[name]:.{digits}f}" + (f" ± {error:.{digits}f}" if error is not None else "") + note
    )


def _difference(row: dict) -> str:
    if row["difference"] is None:
        return ""
    if row["difference_low95"] is None:
        return f"{row['difference']:+.4f}"
    return f"{row['difference']:+.4f} [{row['difference_low95']:+.4f}, {row['difference_high95']:+.4f}]"


def _notes(collection: Collection, rows: list[dict]) -> list[str]:
    notes = ["", "± is the standard error over seeds."]
    if any(row["baseline"] for row in rows):
        baseline = ", ".join(f"{key} {value}" for key, value in collection.sweep.baseline.items())
        notes.append(f"Differences are paired by seed, from the same settings with {baseline}.")
    if any(row["method"] == "expert-choice" for row in rows):
        notes.append("Expert choice looks at later tokens: its loss is not that of a causal model.")
    if collection.problems:
        notes += ["", "Not in the table:"]
        notes += [f"- {name}: {reason}" for name, reason in collection.problems.items()]
    return notes
