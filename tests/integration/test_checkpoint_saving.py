"""What a save leaves at each moment, and that reading runs nothing, below the checks before it."""

import json
import os
import pickle
import resource
import shutil
import signal

import pytest
import torch
from megatron.core import dist_checkpointing
from megatron.core.dist_checkpointing.validation import verify_integrity_manifest
from megatron.training import checkpointing
from torch.distributed.checkpoint import CheckpointException, FileSystemReader

from checkpoints import BAD, Bomb, options, replace_object, truncate
from commands import TRACKER
from megatron.remoe.checkpoint import saving
from megatron.remoe.checkpoint.atomic_file import atomic_file
from megatron.remoe.checkpoint.files import CheckpointError, checkpoint_to_load, newest_good
from megatron.remoe.checkpoint.patches import guard_checkpoints
from megatron.remoe.checkpoint.saving import is_about_files, make_room, not_saved


@pytest.fixture
def root(saved_checkpoints, tmp_path):
    return shutil.copytree(saved_checkpoints["torch_dist"], tmp_path / "root")


# --- reading


def test_the_index_runs_nothing(root, tmp_path):
    guard_checkpoints()
    folder = root / f"iter_{BAD:07d}"
    assert FileSystemReader(folder).read_metadata().storage_data
    (folder / ".metadata").write_bytes(pickle.dumps(Bomb(tmp_path / "it_ran")))
    with pytest.raises(pickle.UnpicklingError, match=r"posix\.system"):
        FileSystemReader(folder).read_metadata()
    assert not (tmp_path / "it_ran").exists()


def test_the_common_state_runs_nothing(root, tmp_path):
    guard_checkpoints()
    folder = root / f"iter_{BAD:07d}"
    assert isinstance(dist_checkpointing.load_common_state_dict(folder), dict)
    replace_object(folder, "common_state", [Bomb(tmp_path / "it_ran")])
    with pytest.raises(CheckpointException, match=r"posix\.system|Weights only"):
        dist_checkpointing.load_common_state_dict(folder)
    assert not (tmp_path / "it_ran").exists()


# --- which one


@pytest.mark.parametrize(
    ("changes", "loaded"),
    [
        ({}, "iter_0000020"),
        ({"ckpt_step": 10}, "iter_0000010"),
        ({"load": None}, None),
        ({"load": "s3://bucket/run"}, None),
    ],
    ids=["tracker", "step", "nothing", "object storage"],
)
def test_the_checkpoint_to_load(root, changes, loaded):
    folder = checkpoint_to_load(options(root, **changes))
    assert (folder and folder.name) == loaded


def test_a_pretrained_one_where_the_run_has_none(root, tmp_path):
    new = tmp_path / "new"
    there = {"pretrained_checkpoint": str(root)}
    assert checkpoint_to_load(options(new, **there)) == root / "iter_0000020"
    assert checkpoint_to_load(options(root, **there, load=None)) == root / "iter_0000020"
    assert checkpoint_to_load(options(root, pretrained_checkpoint="x")).name == "iter_0000020"
    with pytest.raises(
        CheckpointError, match=r"--pretrained-checkpoint .*: no checkpoint is named"
    ):
        checkpoint_to_load(options(new, pretrained_checkpoint=str(tmp_path)))


def test_a_release(root):
    (root / TRACKER).write_text("release\n")
    assert checkpoint_to_load(options(root, ckpt_step=10)) == root / "release"


def test_a_run_that_resumes_itself_may_start_from_nothing(root, tmp_path):
    new = tmp_path / "new"
    assert checkpoint_to_load(options(new, save=str(new))) is None
    (new / "iter_0000010").mkdir(parents=True)  # killed in its first save
    assert checkpoint_to_load(options(new, save=str(new))) is None
    for changes in (
        {},
        {"save": str(root)},
        {"save": str(new), "exit_on_missing_checkpoint": True},
    ):
        with pytest.raises(CheckpointError, match="no good checkpoint is in"):
            checkpoint_to_load(options(new, **changes))
    (root / TRACKER).unlink()  # killed between the files of a save and the tracker file
    itself = options(root, save=str(root))
    newest = newest_good(root, contents=False)
    assert checkpoint_to_load(itself) == root / f"iter_{newest:07d}"
    assert itself.ckpt_step == newest
    with pytest.raises(CheckpointError, match=f"--ckpt-step {newest_good(root)}"):
        checkpoint_to_load(options(root))


def test_half_of_a_first_save_in_format_torch_is_not_gone_on_from(saved_checkpoints, tmp_path):
    """A rank's file may be missing: only the manifest says that all are there."""
    root = shutil.copytree(saved_checkpoints["torch"], tmp_path / "root")
    (root / TRACKER).unlink()
    itself = options(root, save=str(root), ckpt_format="torch")
    assert checkpoint_to_load(itself).name == "iter_0000020"
    for folder in root.glob("iter_*"):
        (folder / "integrity.json").unlink()
    assert checkpoint_to_load(options(root, save=str(root), ckpt_format="torch")) is None


# --- saving


def test_the_manifest_is_one_that_megatron_reads(root):
    folder = root / f"iter_{BAD:07d}"
    verify_integrity_manifest(str(folder))
    listed = json.loads((folder / "integrity.json").read_text())
    assert set(listed["sizes"]) == {".metadata", "__0_0.distcp", "metadata.json"}
    assert set(listed["files"]) == set(listed["sizes"])


def test_without_hashes_only_sizes_are_kept(root):
    with saving.tracker_file(root / TRACKER, hashes=False) as tracker:
        tracker.write(str(BAD))
    listed = json.loads((root / f"iter_{BAD:07d}" / "integrity.json").read_text())
    assert listed["files"] == {} and len(listed["sizes"]) == 3


def test_a_file_is_replaced_in_one_step(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with atomic_file(path) as file:
        file.write("new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    with pytest.raises(OSError), atomic_file(path) as file:
        raise OSError("disk full")
    assert path.read_text() == "new" and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_megatron_writes_the_tracker_file_last_and_whole(root, monkeypatch):
    guard_checkpoints()
    monkeypatch.setattr("megatron.remoe.checkpoint.patches.get_args", lambda: options(root))
    (root / "iter_0000020" / "integrity.json").unlink()
    with checkpointing.maybe_msc.open(str(root / TRACKER), "w") as tracker:
        tracker.write("20")
        assert (root / TRACKER).read_text() == "20"
        assert not (root / "iter_0000020" / "integrity.json").exists()
    assert (root / "iter_0000020" / "integrity.json").exists()
    with checkpointing.maybe_msc.open(str(root / TRACKER), "r") as tracker:
        assert tracker.read() == "20"


def test_a_checkpoint_without_its_manifest_gets_no_name(root, monkeypatch):
    """Its manifest cannot be written: the disk is full."""
    (root / TRACKER).write_text("10")

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, "write_manifest", full)
    with pytest.raises(OSError), saving.tracker_file(root / TRACKER) as tracker:
        tracker.write("20")
    assert (root / TRACKER).read_text() == "10"


def test_room_is_made_of_what_an_interrupted_save_left(root):
    folder = root / "iter_0000030"
    folder.mkdir()
    (folder / "__1_0.distcp").write_bytes(b"half")
    make_room(folder)
    assert not folder.exists()
    make_room(folder)


def test_a_finished_checkpoint_is_kept_until_the_next_one_is_finished(root):
    folder, aside = root / "iter_0000020", root / "iter_0000020.replaced"
    content = (folder / "__0_0.distcp").read_bytes()
    make_room(folder)
    assert checkpoint_to_load(options(root)).name == "iter_0000010"
    assert not folder.exists() and (aside / "__0_0.distcp").read_bytes() == content
    folder.mkdir()
    (folder / "__0_0.distcp").write_bytes(b"half")  # killed; saved again
    make_room(folder)
    assert not folder.exists() and (aside / "__0_0.distcp").read_bytes() == content
    folder.mkdir()
    with saving.tracker_file(root / TRACKER) as tracker:
        tracker.write("20")
    assert folder.exists() and not aside.exists()


def test_a_linked_folder_is_left_alone(root, tmp_path):
    (root / "iter_0000030").symlink_to(root / "iter_0000010")
    make_room(root / "iter_0000030")
    assert (root / "iter_0000010" / "metadata.json").exists()


def test_a_failed_save_says_why_and_what_is_left(root):
    failure = CheckpointException("write", {0: (OSError(28, "No space left on device"), None)})
    truncate(root / "iter_0000020" / "__0_0.distcp")
    message = str(not_saved(root, failure))
    assert "not saved: [Errno 28] No space left on device (" in message
    assert message.endswith("iteration 10 is whole") and "\n" not in message
    assert is_about_files(failure) and is_about_files(OSError(5, "x"))
    assert not is_about_files(RuntimeError("Connection closed by peer"))


def test_torch_says_in_its_own_way_that_the_disk_is_full(tmp_path):
    """In a process of its own: files of more than 1 KiB cannot be written there."""
    limit = (1024, 1024)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        try:
            torch.save(torch.zeros(4096), tmp_path / "x.pt")
        except Exception as error:
            os._exit(0 if is_about_files(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
