"""Change how many experts a trained ReMoE model uses: thresholds calibrated on text, no training.

    python tools/checkpoint/set_active_experts.py remoe --active-experts 0.7 --text a.jsonl --output new
    python tools/checkpoint/set_active_experts.py remoe --curve 0.5 1 2 --text a.jsonl --output curve

The first writes a copy of the folder (or changes it, with --in-place) whose config.json holds
`router_thresholds`. The second writes loss against active experts, as JSON and as a picture.
"""

import argparse
import json
import shutil
import sys
from decimal import Decimal
from pathlib import Path

from ways_in import command, folders
from ways_in.measuring import measure, routers_of
from ways_in.text import Sequences, read_sequences
from ways_in.thresholds import find_thresholds, set_thresholds


def main(argv: list[str] | None = None) -> int:
    """Parse, calibrate, say what is wrong in one line."""
    words = _parse(argv)
    return command.run("set_active_experts.py", lambda: _run(words))


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("model", type=Path, help="Hugging Face folder of a ReMoE model")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--active-experts", type=float, metavar="X", help="mean a token, over layers")
    what.add_argument("--curve", type=float, nargs="+", metavar="X", help="measure each of these")
    add("--output", type=Path, help="a new folder: of the copy, or of the curve's files")
    add("--in-place", action="store_true", help="change the model's own config.json")
    add(
        "--shares",
        choices=["one", "even"],
        default="one",
        help="one threshold for all layers, so that each keeps its share of experts (lower loss), or "
        "X experts in every layer (default: %(default)s)",
    )
    command.add_text_options(parser)
    return parser.parse_args(argv)


def _run(words: argparse.Namespace) -> None:
    _check(words)
    model, tokenizer = folders.load(words.model)
    for active in words.curve or [words.active_experts]:
        command.check_active(active, model.config.num_experts)
    text = read_sequences(
        words.text, tokenizer, words.tokens, command.sequence_length(words, model)
    )
    if words.curve:
        _write_curve(words, _curve(model, text, words))
        return
    before = measure(model, text.evaluation)
    find_thresholds(model, text.calibration, words.active_experts, words.shares)
    after = measure(model, text.evaluation)
    thresholds = model.config.router_thresholds
    if words.in_place:
        _write_thresholds(words.model / "config.json", thresholds)
    else:
        with folders.new_folder(words.output) as folder:
            shutil.copytree(words.model, folder, dirs_exist_ok=True)
            _write_thresholds(folder / "config.json", thresholds)
    print(f"before: {before}\nafter:  {after}")
    # All digits, without exponents: argparse takes -1e-05 for an option.
    values = " ".join(f"{Decimal(repr(threshold)):f}" for threshold in thresholds)
    print(f"--moe-relu-router-thresholds {values}", flush=True)


def _check(words: argparse.Namespace) -> None:
    command.check_numbers(words)
    if words.in_place and (words.output or words.curve):
        raise ValueError("--in-place: goes neither with --output nor with --curve")
    if not words.in_place and not words.output:
        raise ValueError("--output: give a new folder (or --in-place, without --curve)")
    folders.check_source(words.model, ("remoe",), {})
    if words.output:
        folders.check_output(words.output)
        if words.model.resolve() in words.output.resolve().parents:
            raise ValueError(f"--output {words.output}: is in the model's folder: name another")


def _curve(model, text: Sequences, words: argparse.Namespace) -> list[dict]:
    """Loss at plain ReLU and at each number of active experts, in ascending order of them."""
    points = []
    for active in (None, *words.curve):
        if active is None:
            set_thresholds(model, [0.0] * len(routers_of(model)))
        else:
            find_thresholds(model, text.calibration, active, words.shares)
        found = measure(model, text.evaluation)
        print(f"{'as trained' if active is None else active}: {found}", flush=True)
        points.append(
            {
                "asked": active,
                "active_experts": found.mean_active,
                "active_experts_by_layer": found.active_experts,
                "loss": found.loss,
                "router_thresholds": model.config.router_thresholds,
            }
        )
    return sorted(points, key=lambda point: point["active_experts"])


def _write_curve(words: argparse.Namespace, points: list[dict]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    axes.plot([p["active_experts"] for p in points], [p["loss"] for p in points], "o-")
    (trained,) = [p for p in points if p["asked"] is None]
    axes.plot(trained["active_experts"], trained["loss"], "o", color="C3", label="as trained")
    axes.set(xlabel="active experts a token", ylabel="loss, nats a token", xscale="log")
    axes.xaxis.set_major_formatter("{x:g}")  # not as powers of ten
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.legend()
    with folders.new_folder(words.output) as folder:
        (folder / "curve.json").write_text(json.dumps(points, indent=2) + "\n")
        figure.savefig(folder / "curve.png", dpi=120)
    pyplot.close(figure)


def _write_thresholds(path: Path, thresholds: list[float]) -> None:
    config = json.loads(path.read_text(encoding="utf-8"))
    config["router_thresholds"] = thresholds
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    partial.replace(path)


if __name__ == "__main__":
    sys.exit(main())
