"""analysis.json: every figure of a run, with names and units."""

import json
import math
import os
from pathlib import Path

import numpy as np

from routing_analysis.quantities import QUANTITIES

FORMAT = 1
NAME = "analysis.json"


def write_results(folder: Path, results: dict) -> Path:
    """Replace a run's analysis.json at once; NaN becomes null.

    Args:
        folder: Of the analysis.
        results: Nested dictionaries and lists of numbers, arrays and words.

    Returns:
        The file.
    """
    units = {name: {"unit": unit, "meaning": text} for name, (unit, text) in QUANTITIES.items()}
    content = {"format": FORMAT, **results, "quantities": units}
    path = folder / NAME
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{NAME}.partial"
    partial.write_text(json.dumps(plain(content), allow_nan=False) + "\n", encoding="utf-8")
    os.replace(partial, path)
    return path


def plain(value: object) -> object:
    """Arrays as lists, numpy's numbers as Python's, NaN as None."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
