"""One Markdown table over models: each score with its standard error, and below it what it cost."""

import math
from collections.abc import Callable

type Value = float | tuple[float, float | None] | None
type Read = Callable[[dict], Value]  # of a record: a value, or a value and its standard error
type Form = Callable[[float], str]

DOMAIN = "domain:"  # before the names of domains among the results of a model
_NOTHING = "-"


def render(models: dict) -> str:
    """Tables of all tasks and of all domains, for a terminal and for Markdown alike.

    Args:
        models: As in a results file: ``{name: {"results": {task: record}, ...}}``.
    """
    names = list(dict.fromkeys(name for model in models.values() for name in model["results"]))
    tasks = [name for name in names if not name.startswith(DOMAIN)]
    domains = [name for name in names if name.startswith(DOMAIN)]
    parts = []
    if tasks:
        title = "Tasks: score in %, ± standard error; below it the cost of a token in this task"
        parts.append(_section(title, models, tasks, _score, _task_header))
    if domains:
        title = "Domains: bits per byte, ± standard error over documents; perplexity per token"
        parts.append(_section(title, models, domains, _bits, _domain_header, _perplexity))
    parts.append(_models(models))
    return "\n".join(parts)


def _section(
    title: str,
    models: dict,
    names: list[str],
    score: Read,
    header: Callable[[str, list[dict]], str],
    second: Read | None = None,
) -> str:
    """A table with a column for each name, and for each model the lines of `_lines`."""
    rows = [["", *(header(name, _records(models, name)) for name in names), "mean"]]
    rows.append(["documents", *(_documents(_records(models, name)) for name in names), ""])
    for model_name, model in models.items():
        records = [model["results"].get(name) for name in names]
        rows += _lines(f"**{model_name}**", records, score, second)
    return f"{title}\n\n{markdown(rows)}\n"


def _lines(
    label: str, records: list[dict | None], score: Read, second: Read | None
) -> list[list[str]]:
    """Score, second score and costs of one model."""
    lines = [_line(label, records, score, _fixed(3 if second else 1), with_error=True)]
    if second:
        lines.append(_line("perplexity", records, second, _four_digits))
    if any(_cost("num_experts")(record) for record in records if record):
        lines.append(_line("active experts", records, _cost("active_experts"), _fixed(3)))
        without = _cost("tokens_without_expert", 100)
        lines.append(_line("without expert, %", records, without, _fixed(1)))
    if any(record and record.get("routing") for record in records):
        lines.append(_line("MFLOPs", records, _cost("flops_per_token", 1e-6), _four_digits))
    return lines


def _line(
    label: str,
    records: list[dict | None],
    read,
    form: Callable[[float], str],
    with_error: bool = False,
):
    """A row: one cell for each record and their mean, which there is if every record has a value."""
    values = [read(record) if record else None for record in records]
    values = [value if isinstance(value, tuple) else (value, None) for value in values]
    numbers, errors = zip(*values, strict=True)
    mean, mean_error = None, None
    if all(number is not None for number in numbers):
        mean = sum(numbers) / len(numbers)
        if all(error is not None for error in errors):
            mean_error = math.sqrt(sum(error**2 for error in errors)) / len(errors)
    pairs = [*zip(numbers, errors, strict=True), (mean, mean_error)]
    return [label, *(_cell(value, error, form, with_error) for value, error in pairs)]


def _cell(
    value: float | None, error: float | None, form: Callable[[float], str], with_error: bool
) -> str:
    if value is None:
        return _NOTHING
    text = form(value)
    return f"{text} ± {form(error)}" if with_error and error is not None else text


def _fixed(digits: int) -> Form:
    return lambda value: f"{value:.{digits}f}"


def _four_digits(value: float) -> str:
    whole = len(str(int(value)))
    return f"{value:,.{max(0, 4 - whole)}f}"


def main_metric(record: dict) -> str:
    """The metric that the table shows: accuracy, else what the harness gives first."""
    return "acc" if "acc" in record["metrics"] else next(iter(record["metrics"]))


def _score(record: dict) -> tuple[float, float | None]:
    name = main_metric(record)
    metric = record["metrics"][name]
    # Perplexities and the like are no shares.
    scale = 100 if 0 <= metric["value"] <= 1 and metric["higher_is_better"] else 1
    error = metric["stderr"]
    return metric["value"] * scale, None if error is None else error * scale


def _bits(record: dict) -> tuple[float, float | None]:
    metric = record["metrics"]["bits_per_byte"]
    return metric["value"], metric["stderr"]


def _perplexity(record: dict) -> float:
    return record["metrics"]["perplexity"]["value"]


def _cost(key: str, scale: float = 1) -> Read:
    def read(record: dict) -> float | None:
        value = (record.get("routing") or {}).get(key)
        return None if value is None else value * scale

    return read


def _records(models: dict, name: str) -> list[dict]:
    return [model["results"][name] for model in models.values() if name in model["results"]]


def _task_header(name: str, records: list[dict]) -> str:
    record = max(records, key=lambda record: record["num_documents"])
    parts = [] if main_metric(record) == "acc" else [main_metric(record)]
    if "chance" in record:
        parts.append(f"chance {100 * record['chance']:.1f}")
    if "majority" in record:
        parts.append(f"majority {100 * record['majority']:.1f}")
    return f"{name} ({', '.join(parts)})" if parts else name


def _domain_header(name: str, records: list[dict]) -> str:
    return name.removeprefix(DOMAIN)


def _documents(records: list[dict]) -> str:
    # Two numbers: these scores are not of the same documents.
    return " / ".join(str(n) for n in sorted({record["num_documents"] for record in records}))


def _models(models: dict) -> str:
    rows = [["model", "form", "parameters", "context", "dtype"]]
    for name, model in models.items():
        millions = f"{model['num_parameters'] / 1e6:.2f} M"
        rows.append([name, model["form"], millions, str(model["max_length"]), model["dtype"]])
    return markdown(rows) + "\n"


def markdown(rows: list[list[str]]) -> str:
    """A table of aligned columns: the first row is the header, the first column is left-aligned."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [_aligned(row, widths) for row in rows]
    rule = "|".join(
        "-" * (width + 2) if i == 0 else "-" * (width + 1) + ":" for i, width in enumerate(widths)
    )
    return "\n".join([lines[0], f"|{rule}|", *lines[1:]])


def _aligned(row: list[str], widths: list[int]) -> str:
    first, *others = zip(row, widths, strict=True)
    cells = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
    return f"| {' | '.join(cells)} |"
