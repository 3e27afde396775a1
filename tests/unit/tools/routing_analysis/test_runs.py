"""Which checkpoints a folder holds."""

import json

import pytest

from evaluation.errors import EvaluationError
from routing_analysis import runs
from routing_analysis.runs import find_run


@pytest.fixture(autouse=True)
def whole_and_sparse(monkeypatch):
    """Checkpoints that are whole unless they hold a file named so, of models with experts."""
    from megatron.remoe.checkpoint import files

    monkeypatch.setattr(
        files, "what_is_wrong", lambda folder: "cut" if (folder / "cut").exists() else None
    )
    monkeypatch.setattr(runs, "_arguments", lambda checkpoint: checkpoint)


def make(root, *steps):
    for step in steps:
        (root / f"iter_{step:07d}").mkdir(parents=True)
    return root


@pytest.mark.parametrize("below", ["checkpoints", "checkpoint", "."])
def test_a_runs_folder_or_its_checkpoints_are_named(tmp_path, below):
    root = make(tmp_path / "run" / below, 20, 5, 1000)
    for path in {tmp_path / "run", root}:
        run = find_run(path, None, None)
        assert (run.name, list(run.checkpoints)) == ("run", [5, 20, 1000])
        assert run.output == tmp_path / "run" / "analysis"
        assert run.records == tmp_path / "run" / "routing"
        assert run.args == root / "iter_0001000"


def test_one_iteration_is_named(tmp_path):
    make(tmp_path / "run/checkpoints", 5, 20)
    run = find_run(tmp_path / "run/checkpoints/iter_0000005", None, None)
    assert (run.name, list(run.checkpoints)) == ("run", [5])


def test_a_hugging_face_folder_is_one_checkpoint(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({}))
    run = find_run(tmp_path, None, None)
    assert (run.checkpoints, run.args) == ({0: tmp_path}, None)


def test_steps_are_chosen(tmp_path):
    make(tmp_path, 5, 20, 30)
    assert list(find_run(tmp_path, [30, 5], None).checkpoints) == [5, 30]
    with pytest.raises(EvaluationError, match=r"--steps 7: .* has checkpoints of steps 5, 20, 30"):
        find_run(tmp_path, [5, 7], None)


def test_output_is_a_folder_for_each_run(tmp_path):
    make(tmp_path / "run/checkpoints", 5)
    assert find_run(tmp_path / "run", None, tmp_path / "out").output == tmp_path / "out/run"


def test_a_checkpoint_whose_saving_was_not_finished_is_left_out_and_named(tmp_path, capsys):
    make(tmp_path, 5, 20)
    (tmp_path / "iter_0000020/cut").touch()
    assert list(find_run(tmp_path, None, None).checkpoints) == [5]
    assert "iter_0000020: left out: cut" in capsys.readouterr().err
    (tmp_path / "iter_0000005/cut").touch()
    with pytest.raises(EvaluationError, match="none of its 2 checkpoints is whole"):
        find_run(tmp_path, None, None)


def test_no_run_and_no_checkpoint_are_refused(tmp_path):
    with pytest.raises(EvaluationError, match="no such folder; give that of a run"):
        find_run(tmp_path / "none", None, None)
    with pytest.raises(
        EvaluationError, match=r"no checkpoint there .*checkpoints.*train with --save"
    ):
        find_run(tmp_path, None, None)
