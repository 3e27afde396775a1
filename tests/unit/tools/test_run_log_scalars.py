"""The scalars of a run that was trained in several attempts."""

import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from run_log.scalars import RunLogError, read_scalars


def write(folder, number, **curves):
    """An event file; `number` is its place in the order of time."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"events.out.tfevents.{1000 + number}.host").open("wb") as file:
        writer = RecordWriter(file)
        for tag, points in curves.items():
            for step, value in points.items():
                name = tag.replace("_", " ")
                summary = Summary(value=[Summary.Value(tag=name, simple_value=value)])
                event = Event(wall_time=number, step=step, summary=summary)
                writer.write(event.SerializeToString())
        writer.flush()


def points(log, tag):
    steps, values = log.curves[tag]
    return dict(zip(steps.tolist(), values.tolist(), strict=True))


def test_a_resumed_run_stands_from_where_it_went_on(tmp_path):
    write(tmp_path, 1, lm_loss={1: 9, 2: 8, 3: 7, 4: 6}, lm_loss_validation={2: 5, 4: 3})
    write(tmp_path, 2, lm_loss={3: 1})  # from the checkpoint of step 2, and killed again
    log = read_scalars(tmp_path)
    assert points(log, "lm loss") == {1: 9, 2: 8, 3: 1}
    assert points(log, "lm loss validation") == {2: 5}


def test_a_run_that_began_anew_in_its_folder_keeps_nothing_of_the_first(tmp_path):
    write(tmp_path, 1, lm_loss={1: 9, 2: 8, 3: 7}, moe_relu_sparsity={1: 0.5})
    write(tmp_path, 2, lm_loss={1: 4})
    log = read_scalars(tmp_path)
    assert points(log, "lm loss") == {1: 4}
    assert "moe relu sparsity" not in log.curves


def test_a_later_evaluation_of_an_early_checkpoint_costs_no_value(tmp_path):
    write(tmp_path, 1, lm_loss={1: 9, 2: 8}, lm_loss_validation={1: 5, 2: 4})
    write(tmp_path, 2, lm_loss_validation={1: 6})
    log = read_scalars(tmp_path)
    assert points(log, "lm loss") == {1: 9, 2: 8}
    assert points(log, "lm loss validation") == {1: 6, 2: 4}


def test_events_of_several_runs_are_refused(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name / "tensorboard", 1, lm_loss={1: 9})
    with pytest.raises(RunLogError, match="events of 2 runs there, in a/tensorboard, b/tensorb"):
        read_scalars(tmp_path)
