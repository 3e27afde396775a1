"""What is read of a run's folder."""

import dataclasses

import numpy as np
import pytest

from report_runs import STEPS, make_maps, make_record
from reporting import checkpoints, heatmaps
from reporting import runs as reading
from run_log.scalars import RunLogError
from run_log.style import plt


def save(folder, *records):
    for record in records:
        record.save(folder / "routing" / f"{record.phase}-{record.step:08d}.npz")


def test_the_last_evaluation_is_preferred_to_later_training(tmp_path):
    save(tmp_path, make_record(10, "valid"), make_record(20, "train"), make_record(30, "train"))
    run = reading.read_run("run", tmp_path)
    assert run.record_name == "Evaluation at step 10"
    assert [snapshot.step for snapshot in run.snapshots] == [20, 30], "one evaluation is no curve"


def test_of_maps_alone_the_counts_are_those_of_records(tmp_path):
    for step in STEPS:
        make_maps(step).save(tmp_path / "analysis" / f"maps-{step:08d}.npz")
    run = reading.read_run("run", tmp_path)
    expected = make_record(30, "valid")
    assert run.record_name == "Calibration text at step 30"
    assert [snapshot.step for snapshot in run.snapshots] == list(STEPS)
    for name in ("tokens_per_expert", "experts_per_token", "gate_sum", "domain_tokens"):
        assert np.array_equal(getattr(run.record, name), getattr(expected, name)), name


def test_many_records_are_thinned_evenly_with_the_first_and_the_last(monkeypatch, tmp_path):
    monkeypatch.setattr(reading, "_MOST_RECORDS", 3)
    save(tmp_path, *(make_record(step, "train") for step in range(1, 8)))
    run = reading.read_run("run", tmp_path)
    assert [snapshot.step for snapshot in run.snapshots] == [1, 4, 7]


def test_a_record_without_a_step_in_its_name_is_refused(tmp_path):
    make_record(10, "train").save(tmp_path / "routing" / "train-last.npz")
    with pytest.raises(RunLogError, match=r"train-last.npz: its name does not end in a step"):
        reading.read_run("run", tmp_path)


def test_maps_of_another_text_are_refused(tmp_path):
    make_maps(10).save(tmp_path / "analysis" / "maps-00000010.npz")
    maps = make_maps(20)
    other = dataclasses.replace(maps, token_ids=maps.token_ids[::-1])
    other.save(tmp_path / "analysis" / "maps-00000020.npz")
    with pytest.raises(RunLogError, match=r"maps-00000010.npz: its calibration text is another"):
        checkpoints.build([reading.read_run("run", tmp_path)])


def of_more_experts(record):
    names = ["gate_sum", "gate_square_sum", "gate_max", "tokens_per_expert", "experts_per_token"]
    names += ["domain_tokens_per_expert", "token_tokens_per_expert"]
    arrays = {name: getattr(record, name) for name in names}
    wider = {name: np.pad(a, [*[(0, 0)] * (a.ndim - 1), (0, 1)]) for name, a in arrays.items()}
    return dataclasses.replace(record, **wider)


def test_a_record_of_another_model_is_refused(tmp_path):
    save(tmp_path, of_more_experts(make_record(10, "train")), make_record(20, "train"))
    message = (
        r"train-00000010.npz: of another model \(5 experts in layers 1, 2, 3\) than train-00000020"
    )
    with pytest.raises(RunLogError, match=message):
        reading.read_run("run", tmp_path)


def test_maps_of_another_model_are_refused(tmp_path):
    for step, layers in ((10, 2), (20, 3)):
        maps = make_maps(step)
        meta = maps.meta | {"moe_layers": list(range(1, layers + 1))}
        cut = dataclasses.replace(maps, meta=meta, maps=maps.maps[:layers], gates=None)
        cut.save(tmp_path / "analysis" / f"maps-{step:08d}.npz")
    files = {step: tmp_path / "analysis" / f"maps-{step:08d}.npz" for step in (10, 20)}
    run = reading.Run("run", tmp_path, None, [], None, "", files)
    with pytest.raises(RunLogError, match=r"maps-00000010.npz: of a model with other layers"):
        checkpoints.build([run])


@pytest.mark.parametrize("count, chosen", [(1, [0]), (3, [0, 1, 2]), (24, [0, 8, 15, 23])])
def test_pictures_take_the_first_and_the_last_layer_and_some_between(count, chosen):
    assert heatmaps.chosen_layers(count) == chosen


@pytest.mark.parametrize("experts, labels", [(8, 8), (32, 8), (130, 8)])
def test_a_low_panel_has_labels_that_do_not_touch(experts, labels):
    _, axis = plt.subplots()
    heatmaps.over_steps(axis, np.ones((experts, 2)), heatmaps.ratios(), [10, 20])
    assert len(axis.get_yticks()) <= labels
    plt.close()
