"""What is written for an output belongs to one run at a time, and is nobody else's."""

import pytest

from megatron.remoe.conversion.architecture import ConversionError
from megatron.remoe.conversion.work_folder import work_folder

TASK, OTHER_TASK = {"input": "a"}, {"input": "b"}


def interrupt(output, task, name):
    """A run that is ended after it wrote a file."""
    with pytest.raises(KeyboardInterrupt), work_folder(output, task) as folder:
        (folder / name).write_text(name)
        raise KeyboardInterrupt


def test_it_appears_whole_and_under_its_name_alone(tmp_path):
    with work_folder(tmp_path / "out", TASK) as folder:
        (folder / "file").write_text("x")
        assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "file"]


def test_the_same_task_goes_on_and_another_starts_anew(tmp_path):
    output = tmp_path / "out"
    interrupt(output, TASK, "one")
    interrupt(output, TASK, "two")
    with work_folder(output, TASK) as folder:
        assert (folder / "one").is_file() and (folder / "two").is_file()
    output = tmp_path / "other"
    interrupt(output, TASK, "one")
    with work_folder(output, OTHER_TASK) as folder:
        assert not (folder / "one").exists()


def test_a_second_run_is_refused_and_disturbs_nothing(tmp_path):
    output = tmp_path / "out"
    with work_folder(output, TASK) as folder:
        (folder / "file").write_text("x")
        for task in (TASK, OTHER_TASK):
            with (
                pytest.raises(ConversionError, match="another run is writing there"),
                work_folder(output, task),
            ):
                pass
    assert (output / "file").read_text() == "x"


def test_a_folder_that_no_conversion_made_is_not_removed(tmp_path):
    mine = tmp_path / "out.partial" / "mine"
    mine.parent.mkdir()
    mine.write_text("mine")
    with (
        pytest.raises(ConversionError, match="is in the way"),
        work_folder(tmp_path / "out", TASK),
    ):
        pass
    assert mine.read_text() == "mine"
