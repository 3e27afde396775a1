"""The table of a sweep from runs whose losses are known by hand."""

import csv
import json

import pytest

from sweep_runs import write_run, write_sweep
from sweeping import figures
from sweeping.collection import collect
from sweeping.curves import draw_curves
from sweeping.errors import SweepError
from sweeping.figures import draw_all
from sweeping.series import series_over
from sweeping.table import as_csv, as_json, as_markdown, rows_of

TEXT = (
    "size: nano\nbaseline: {method: moe}\n"
    "grid: {method: [dense, moe, remoe], E: [4, 8], seed: [1, 2, 3]}\n"
)
# Final validation losses of seeds 1, 2, 3.
LOSSES = {
    "dense_x1": (5.0, 5.1, 5.2),
    "topk_E4_k1_G1": (4.0, 5.0, 6.0),
    "topk_E8_k1_G1": (4.0, 4.0, 4.0),
    "relu_E4_k1_G1": (3.5, 4.0, 4.5),  # minus TopK: -0.5, -1, -1.5
    "relu_E8_k1_G1": (3.0, 3.0),  # seed 3 failed
}
SETTLES = {4: 0.75, 8: 0.875}


@pytest.fixture
def collection(tmp_path):
    sweep = write_sweep(tmp_path, TEXT)
    for run in sweep.runs:
        losses = LOSSES[run.configuration]
        relu = run.settings["method"] == "relu"
        failed = run.seed > len(losses)
        target = SETTLES[int(run.settings.get("E", 8))]
        # Two steps below the target, then at it: settled at step 2 + seed.
        sparsity = [0.1] * (1 + run.seed) + [target] * 40 if relu else None
        last = 9.0 if failed else losses[run.seed - 1]
        state = "failed" if failed else "finished"
        write_run(run, tmp_path / "runs/try" / run.name, [7.0, last], sparsity, state)
    return collect(sweep, tmp_path / "runs")


def row(collection, name):
    return next(row for row in rows_of(collection) if row["configuration"] == name)


def test_mean_and_standard_error_over_seeds(collection):
    found = row(collection, "topk_E4_k1_G1")
    assert found["seeds"] == 3
    assert found["validation_loss"] == pytest.approx(5.0)
    assert found["validation_loss_error"] == pytest.approx(1 / 3**0.5)


def test_a_difference_is_paired_with_the_baseline_of_the_same_experts(collection):
    found = row(collection, "relu_E4_k1_G1")
    assert (found["baseline"], found["pairs"]) == ("topk_E4_k1_G1", 3)
    assert found["difference"] == pytest.approx(-1.0)
    assert found["difference_error"] == pytest.approx(0.5 / 3**0.5)
    half = 4.302653 * 0.5 / 3**0.5
    assert found["difference_low95"] == pytest.approx(-1 - half, rel=1e-6)
    assert found["difference_high95"] == pytest.approx(-1 + half, rel=1e-6)


def test_the_baseline_has_no_difference_from_itself(collection):
    found = row(collection, "topk_E8_k1_G1")
    assert (found["baseline"], found["difference"]) == (None, None)


def test_a_failed_run_is_named_and_in_no_mean(collection):
    found = row(collection, "relu_E8_k1_G1")
    assert (found["seeds"], found["pairs"], found["validation_loss"]) == (2, 2, pytest.approx(3.0))
    assert collection.problems == {"relu_E8_k1_G1_s3": "failed"}
    assert "- relu_E8_k1_G1_s3: failed" in as_markdown(collection)


def test_settling_sparsity_and_active_experts_are_read_from_the_events(collection):
    found = row(collection, "relu_E4_k1_G1")
    assert found["settled_step"] == pytest.approx(4.0)  # steps 3, 4, 5
    assert found["settled_seeds"] == "3/3"
    assert found["sparsity"] == pytest.approx(0.75)
    assert found["active_experts"] == pytest.approx(2.0)  # 8 * (1 - 0.75), as logged
    assert row(collection, "dense_x1")["settled_seeds"] is None


def test_csv_and_json_hold_the_same_rows_as_numbers(collection):
    lines = list(csv.DictReader(as_csv(collection).splitlines()))
    report = json.loads(as_json(collection))
    assert [line["configuration"] for line in lines] == [
        row["configuration"] for row in report["table"]
    ]
    for line, entry in zip(lines, report["table"], strict=True):
        assert float(line["validation_loss"]) == entry["validation_loss"]
    seed = report["runs"]["topk_E4_k1_G1"]["2"]
    assert seed["validation"] == {"10": 7.0, "20": 5.0}
    assert (seed["commit"], seed["hardware"]) == ("abc", "2 cores, hand")


def test_the_columns_are_the_settings_that_vary(collection):
    head = as_markdown(collection).splitlines()[0]
    assert head.startswith("| method | E | seeds |")


def test_every_figure_is_drawn(collection, tmp_path):
    drawn = draw_all(collection, tmp_path / "figures")
    assert [file.name for file in drawn] == ["losses.png", "loss_by_E.png"]
    drawn.append(draw_curves(collection, tmp_path / "figures/loss_curves.png"))
    assert all(file.stat().st_size > 10_000 for file in drawn)


def test_settling_is_drawn_over_the_controllers_settings(tmp_path):
    text = "size: nano\ngrid: {method: remoe, lambda_0: [1e-8, 1e-4]}\n"
    sweep = write_sweep(tmp_path, text)
    for run in sweep.runs:
        write_run(run, tmp_path / "runs/try" / run.name, [7.0, 5.0], [0.1, 0.875])
    drawn = draw_all(collect(sweep, tmp_path / "runs"), tmp_path)
    assert [file.name for file in drawn] == ["losses.png", "settling_by_lambda_0.png"]


def test_a_run_that_never_settles_counts_in_no_mean_of_settling(tmp_path):
    sweep = write_sweep(tmp_path, "size: nano\ngrid: {method: remoe, seed: [1, 2]}\n")
    for run, sparsity in zip(sweep.runs, ([0.1, 0.875], [0.1, 0.1]), strict=True):
        write_run(run, tmp_path / "runs/try" / run.name, [7.0, 5.0], sparsity)
    found = collect(sweep, tmp_path / "runs")
    assert rows_of(found)[0]["settled_seeds"] == "1/2"
    assert "2 (1/2 seeds)" in as_markdown(found)


def test_the_figure_of_settling_says_where_seeds_never_did(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "_save", lambda figure, axes, file: drawn.append(axes) or file)
    text = "size: nano\ngrid: {method: remoe, lambda_0: [1e-8, 1e-4, 1], seed: [1, 2]}\n"
    sweep = write_sweep(tmp_path, text)
    for run in sweep.runs:
        number = float(run.settings["lambda_0"])
        settles = number == 1e-8 or (number == 1e-4 and run.seed == 1)
        sparsity = [0.1, 0.875 if settles else 0.1]
        write_run(run, tmp_path / "runs/try" / run.name, [7.0, 5.0], sparsity)
    series = series_over(collect(sweep, tmp_path / "runs"), "lambda_0")
    figures.draw_settling("lambda_0", series, tmp_path / "a.png")
    axis = drawn[0][0, 0]
    assert {text.get_text(): text.xy for text in axis.texts} == {"1/2": (1e-4, 2), "0/2": (1.0, 0)}
    assert "only n of m seeds did; mean over those" in axis.get_title()


@pytest.mark.parametrize("lost", [float("nan"), float("inf")])
def test_a_run_that_diverged_is_named_and_in_no_mean(tmp_path, lost):
    sweep = write_sweep(tmp_path, "size: nano\ngrid: {method: dense, seed: [1, 2]}\n")
    for run, last in zip(sweep.runs, (5.0, lost), strict=True):
        write_run(run, tmp_path / "runs/try" / run.name, [7.0, last])
    found = collect(sweep, tmp_path / "runs")
    assert found.problems == {"dense_x1_s2": f"its last validation loss is {lost}: it diverged"}
    assert rows_of(found)[0]["validation_loss"] == 5.0


def test_loss_curves_with_a_step_that_is_no_number_are_drawn(tmp_path):
    sweep = write_sweep(tmp_path, "size: nano\ngrid: {method: dense}\n")
    write_run(sweep.runs[0], tmp_path / "runs/try" / sweep.runs[0].name, [float("nan"), 5.0])
    assert draw_curves(collect(sweep, tmp_path / "runs"), tmp_path / "curves.png").exists()


def test_a_sweep_without_any_finished_run_is_refused(tmp_path):
    sweep = write_sweep(tmp_path, "size: nano\ngrid: {method: dense}\n")
    with pytest.raises(SweepError, match=r"no run is finished \(dense_x1_s1: missing\)"):
        collect(sweep, tmp_path / "runs")
