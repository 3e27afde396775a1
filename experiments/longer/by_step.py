"""Each method minus ReMoE as these runs went on: `python experiments/longer/by_step.py`."""

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "scripts"))

from sweeping.statistics import paired_difference

BASELINE = "relu_E8_k1_G1_steps1800"
FIRST, LAST = "600", "1800"


def main() -> None:
    """Print the table of the README from results.json."""
    runs = json.loads((HERE / "results.json").read_text())["runs"]
    print("| | step 600 | step 1,800 | change |\n| --- | ---: | ---: | ---: |")
    for name, seeds in runs.items():
        if name != BASELINE:
            columns = [losses(seeds, step) for step in (FIRST, LAST)]
            others = [losses(runs[BASELINE], step) for step in (FIRST, LAST)]
            cells = [cell(*pair) for pair in zip(columns, others, strict=True)]
            leads = [
                {seed: ours[seed] - theirs[seed] for seed in ours}
                for ours, theirs in zip(columns, others, strict=True)
            ]
            print(f"| {name} | {' | '.join([*cells, cell(leads[1], leads[0])])} |")


def losses(seeds: dict[str, dict], step: str) -> dict[str, float]:
    """Validation loss by seed."""
    return {seed: run["validation"][step] for seed, run in seeds.items()}


def cell(values: dict[str, float], baseline: dict[str, float]) -> str:
    """Mean difference and its 95% interval."""
    found = paired_difference(values, baseline)
    low, high = found.interval()
    return f"{found.mean:+.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    main()
