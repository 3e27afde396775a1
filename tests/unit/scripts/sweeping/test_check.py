"""A repeated study is judged by the recorded one's signs and sizes; the judgement can be no."""

import json

import pytest

from sweep_runs import write_run, write_sweep
from sweeping.check import check
from sweeping.collection import collect
from sweeping.errors import SweepError

TEXT = "size: nano\nbaseline: {method: moe}\ngrid: {method: [dense, moe, remoe], seed: [1, 2]}\n"


@pytest.fixture
def judged(tmp_path):
    def judge(then, now, settings=None, name="relu_E8_k1_G1"):
        """`then` is the recorded difference with its interval, `now` the new one of ReMoE from TopK."""
        sweep = write_sweep(tmp_path, TEXT)
        losses = {"dense": 4.5, "topk": 5.0, "relu": 5.0 + now}
        for run in sweep.runs:
            folder = tmp_path / "runs/try" / run.name
            write_run(run, folder, [7.0, losses[run.settings["method"]] + run.seed])
        difference, low, high = then
        row = {
            "configuration": name,
            "baseline": "topk_E8_k1_G1",
            "difference": difference,
        }
        row |= {"difference_low95": low, "difference_high95": high}
        (tmp_path / "recorded.json").write_text(
            json.dumps({"table": [row], "settings": settings or {}})
        )
        return check(collect(sweep, tmp_path / "runs"), tmp_path / "recorded.json")

    return judge


@pytest.mark.parametrize(
    ("now", "holds"),
    [(-0.4, True), (-0.21, True), (-0.19, False), (0.4, False), (-2.0, True)],
)
def test_the_sign_and_half_the_size_must_be_there_again(judged, now, holds):
    (verdict,) = judged((-0.4, -0.5, -0.3), now)
    assert verdict.holds is holds
    assert f"{now:+.4f}, recorded -0.4000, needed at most -0.2000" in verdict.text


def test_a_baseline_that_was_ahead_must_be_ahead_again(judged):
    (verdict,) = judged((0.4, 0.3, 0.5), -0.4)
    assert verdict.holds is False and "needed at least +0.2000: DOES NOT HOLD" in verdict.text


def test_an_interval_with_zero_in_it_has_no_direction_to_repeat(judged):
    with pytest.raises(SweepError, match="no difference with a sign"):
        judged((-0.1, -0.4, 0.2), -0.1)


@pytest.mark.parametrize(
    "name", ["relu_E4_k1_G1", "relu_E8_k2_G1", "relu_E8_k1_G2", "relu-l1_E8_k1_G1"]
)
def test_another_shape_or_method_is_not_compared(judged, name):
    with pytest.raises(SweepError, match="no difference with a sign"):
        judged((-0.4, -0.5, -0.3), -0.4, name=name)


OWN = {"size": "nano", "method": "relu", "E": "8", "k": "1", "G": "1"}


def test_the_same_settings_are_compared(judged):
    assert judged((-0.4, -0.5, -0.3), -0.4, {"relu_E8_k1_G1": OWN})[0].holds


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": "300"}, "relu_E8_k1_G1 is recorded with steps 300, here none"),
        ({"size": "tiny"}, "relu_E8_k1_G1 is recorded with size tiny, here nano"),
    ],
)
def test_the_same_name_with_other_settings_is_refused(judged, changes, said):
    with pytest.raises(SweepError, match=said):
        judged((-0.4, -0.5, -0.3), -0.4, {"relu_E8_k1_G1": OWN | changes})


def test_a_row_without_a_difference_is_not_compared(judged):
    with pytest.raises(SweepError, match="no difference with a sign"):
        judged((None, None, None), -0.4)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"table": [{}]}',
        '{"table": [{"configuration": "a", "baseline": "b"}]}',
        '{"table": 4}',
    ],
)
def test_results_that_lack_something_are_refused(tmp_path, text):
    sweep = write_sweep(tmp_path, "size: nano\ngrid: {method: dense}\n")
    write_run(sweep.runs[0], tmp_path / "runs/try" / sweep.runs[0].name, [5.0])
    (tmp_path / "recorded.json").write_text(text)
    with pytest.raises(SweepError, match=r"recorded.json: no results of a sweep"):
        check(collect(sweep, tmp_path / "runs"), tmp_path / "recorded.json")


def test_a_file_that_holds_no_results_is_refused(tmp_path):
    sweep = write_sweep(tmp_path, "size: nano\ngrid: {method: dense}\n")
    write_run(sweep.runs[0], tmp_path / "runs/try" / sweep.runs[0].name, [5.0])
    with pytest.raises(SweepError, match="no results of a sweep"):
        check(collect(sweep, tmp_path / "runs"), tmp_path / "none.json")
