"""Every damaged checkpoint is refused before anything of it is loaded, in one line that names the file
and the newest good checkpoint."""

import pickle
import shutil

import pytest
import torch

from checkpoints import (
    BAD,
    Bomb,
    flip,
    flip_after,
    options,
    remove,
    rename_data,
    replace_object,
    truncate,
    without_manifest,
    write,
)
from commands import TRACKER
from megatron.remoe.checkpoint.files import CheckpointError, check_checkpoint
from megatron.remoe.checkpoint.patches import compare_contents

DATA, INDEX, CONFIG, MANIFEST = "__0_0.distcp", ".metadata", "metadata.json", "integrity.json"
ARCHIVE = "mp_rank_00/model_optim_rng.pt"
HASH = "damaged: its SHA-256 is not the one in integrity.json"
RUNS = r"it names posix.system, which could run code"


def on(name, damage, *arguments):
    """A damage to one file of the folder."""
    return lambda folder: damage(folder / name, *arguments)


def bare(damage):
    """The damage to a checkpoint that has no manifest: an older one, or another tool's."""

    def damage_without_manifest(folder):
        without_manifest(folder)
        damage(folder)

    return damage_without_manifest


def unlink(path):
    path.unlink()


# What was done to the second checkpoint, and what the message says of it.
DISTRIBUTED = {
    "data truncated": (on(DATA, truncate), rf"{DATA}: truncated: \d+ of \d+ bytes"),
    "data emptied": (on(DATA, write), rf"{DATA}: truncated: 0 of \d+ bytes"),
    "data missing": (on(DATA, unlink), rf"{DATA}: missing"),
    "data longer": (lambda f: (f / DATA).open("ab").write(b"x"), rf"{DATA}: \d+ bytes instead of"),
    "first bit of the data": (on(DATA, flip, 0.0), rf"{DATA}: "),
    "a bit of the data": (on(DATA, flip, 0.5), rf"{DATA}: {HASH}"),
    "another bit of the data": (on(DATA, flip, 0.9), rf"{DATA}: {HASH}"),
    "last bit of the data": (on(DATA, flip, 1.0), rf"{DATA}: "),
    "index missing": (on(INDEX, unlink), rf"{INDEX}: missing"),
    "index truncated": (on(INDEX, truncate), rf"{INDEX}: truncated: \d+ of \d+ bytes"),
    "a bit of the index": (on(INDEX, flip, 0.5), rf"{INDEX}: "),
    "configuration missing": (on(CONFIG, unlink), rf"{CONFIG}: missing"),
    "configuration overwritten": (on(CONFIG, write, b"{}"), rf"{CONFIG}: truncated"),
    "manifest truncated": (on(MANIFEST, truncate), rf"{MANIFEST}: cannot be read"),
    "manifest emptied": (on(MANIFEST, write), rf"{MANIFEST}: cannot be read"),
    "manifest of nothing": (on(MANIFEST, write, b'{"files": {}}'), rf"{MANIFEST}: .*no files"),
    "manifest of another kind": (
        on(MANIFEST, write, b'{"files": {"a": "b"}, "algorithm": "crc"}'),
        rf"{MANIFEST}: .*unknown algorithm 'crc'",
    ),
    "manifest is a list": (on(MANIFEST, write, b"[1]"), rf"{MANIFEST}: cannot be read"),
    "a file planted": (on("common.pt", write, b"x"), r"common.pt: does not belong"),
    "data of another rank planted": (on("__7_0.distcp", write), r"__7_0.distcp: does not belong"),
    "folder missing": (remove, "the folder is missing"),
    "folder emptied": (lambda f: [p.unlink() for p in f.iterdir()], "neither metadata.json"),
    "bare, data truncated": (bare(on(DATA, truncate)), rf"{DATA}: truncated: \d+ of \d+ bytes"),
    "bare, data missing": (bare(on(DATA, unlink)), rf"{DATA}: missing"),
    "bare, a bit of a tensor": (
        bare(on(DATA, flip, 0.5)),
        rf"{DATA}: damaged: the checksum of .* differs",
    ),
    "bare, a bit of an object": (bare(on(DATA, flip_after, b"\x80\x02")), rf"{DATA}: damaged: "),
    "bare, index missing": (bare(on(INDEX, unlink)), rf"{INDEX}: missing"),
    "bare, index truncated": (bare(on(INDEX, truncate)), rf"{INDEX}: cannot be read"),
    "bare, index of something else": (
        bare(on(INDEX, write, b"\x80\x04]\x94.")),
        rf"{INDEX}: is not the index",
    ),
    "bare, index leads out": (bare(lambda f: rename_data(f, "../x")), rf"{INDEX}: names '../x'"),
    "bare, configuration missing": (bare(on(CONFIG, unlink)), rf"{CONFIG}: missing"),
    "bare, configuration emptied": (bare(on(CONFIG, write)), rf"{CONFIG}: cannot be read"),
    "bare, unknown format": (
        bare(on(CONFIG, write, b'{"sharded_backend": "zarr"}')),
        rf"{CONFIG}: format 'zarr' is unknown",
    ),
}
TORCH = {
    "truncated": (on(ARCHIVE, truncate), rf"{ARCHIVE}: truncated: \d+ of \d+ bytes"),
    "emptied": (on(ARCHIVE, write), rf"{ARCHIVE}: truncated: 0 of"),
    "a bit": (on(ARCHIVE, flip, 0.5), rf"{ARCHIVE}: {HASH}"),
    "missing": (on(ARCHIVE, unlink), rf"{ARCHIVE}: missing"),
    "half deleted": (lambda f: remove(f / "mp_rank_01"), "mp_rank_01/model_optim_rng.pt: missing"),
    "bare, truncated": (bare(on(ARCHIVE, truncate)), rf"{ARCHIVE}: damaged: File is not a zip"),
    "bare, emptied": (bare(on(ARCHIVE, write)), rf"{ARCHIVE}: damaged: File is not a zip"),
    "bare, a bit": (bare(on(ARCHIVE, flip, 0.5)), rf"{ARCHIVE}: damaged: the checksum of"),
    "bare, not an archive": (bare(on(ARCHIVE, write, b"\x80\x02}.")), rf"{ARCHIVE}: damaged: File"),
    "bare, nothing in it": (
        bare(lambda f: [remove(p) for p in f.iterdir()]),
        "neither metadata.json .* nor mp_rank_",
    ),
}
BAD_TRACKER = {
    "missing": (unlink, "no checkpoint is named there"),
    "emptied": (write, "names no iteration but ''"),
    "garbage": (lambda p: write(p, b"\xff\x00ten"), "names no iteration but"),
    "negative": (lambda p: write(p, b"-20"), "names no iteration but '-20'"),
    "half of a word": (lambda p: write(p, b"rele"), "names no iteration but 'rele'"),
    "never saved": (lambda p: write(p, b"30"), "iter_0000030: the folder is missing"),
    "release never saved": (lambda p: write(p, b"release"), "release: the folder is missing"),
}


@pytest.fixture
def copy(saved_checkpoints, tmp_path):
    """Copies a folder, to be damaged."""
    return lambda checkpoint_format: shutil.copytree(
        saved_checkpoints[checkpoint_format], tmp_path / "root"
    )


def load(root, **changes):
    """Everything that is checked before Megatron loads."""
    folder = check_checkpoint(options(root, **changes))
    compare_contents(folder)
    return folder


def refused(root, what, mend, **changes):
    with pytest.raises(CheckpointError, match=what) as error:
        load(root, **changes)
    message = str(error.value)
    assert message.endswith(mend), message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("checkpoint_format", ["torch_dist", "torch"])
def test_a_whole_one_is_loaded(copy, checkpoint_format, capsys):
    root = copy(checkpoint_format)
    assert load(root) == root / f"iter_{BAD:07d}"
    (root / f"iter_{BAD:07d}" / "notes.txt").write_text("mine")
    assert load(root) == root / f"iter_{BAD:07d}"
    assert load(root, ckpt_step=10) == root / "iter_0000010"
    assert not capsys.readouterr().out
    without_manifest(root / f"iter_{BAD:07d}")
    load(root)
    assert "has no integrity.json: compared with the checksums" in capsys.readouterr().out


@pytest.mark.parametrize(("damage", "what"), DISTRIBUTED.values(), ids=DISTRIBUTED)
def test_a_damaged_distributed_one(copy, damage, what):
    root = copy("torch_dist")
    damage(root / f"iter_{BAD:07d}")
    refused(root, f"iter_0000020: {what}", "load the newest good one with --ckpt-step 10")


@pytest.mark.parametrize(("damage", "what"), TORCH.values(), ids=TORCH)
def test_a_damaged_one_of_format_torch(copy, damage, what):
    root = copy("torch")
    damage(root / f"iter_{BAD:07d}")
    refused(root, f"iter_0000020: {what}", "load the newest good one with --ckpt-step 10")


@pytest.mark.parametrize(("damage", "what"), BAD_TRACKER.values(), ids=BAD_TRACKER)
def test_a_damaged_tracker_file(copy, damage, what):
    root = copy("torch_dist")
    damage(root / TRACKER)
    refused(root, what, "load the newest good one with --ckpt-step 20")


def test_the_newest_good_one_is_whole_itself(copy):
    root = copy("torch_dist")
    shutil.copytree(root / "iter_0000010", root / "iter_0000015")
    flip(root / "iter_0000015" / DATA, 0.5)
    truncate(root / "iter_0000020" / DATA)
    refused(root, "truncated", "with --ckpt-step 10")
    flip(root / "iter_0000010" / DATA, 0.5)
    refused(root, "truncated", f"no good checkpoint is in {root}")


def plant(root, where):
    """Write a checkpoint whose file at `where` runs a command when it is unpickled."""
    folder, mark = root / f"iter_{BAD:07d}", root / "it_ran"
    if where == "an object":
        replace_object(folder, "common_state", [Bomb(mark)])
    elif where == INDEX:
        (folder / INDEX).write_bytes(pickle.dumps(Bomb(mark)))
    else:
        torch.save({"args": Bomb(mark)}, folder / where)
    return mark


@pytest.mark.parametrize("with_manifest", [False, True], ids=["bare", "with its manifest"])
@pytest.mark.parametrize(
    ("checkpoint_format", "where", "named"),
    [
        ("torch_dist", INDEX, INDEX),
        ("torch_dist", "an object", DATA),
        ("torch", ARCHIVE, ARCHIVE),
        ("torch", "mp_rank_00/distrib_optim.pt", "mp_rank_00/distrib_optim.pt"),
    ],
    ids=["index", "object", "torch", "optimizer of torch"],
)
def test_a_checkpoint_that_would_run_code(copy, checkpoint_format, where, named, with_manifest):
    root = copy(checkpoint_format)
    folder = root / f"iter_{BAD:07d}"
    mark = plant(root, where)
    without_manifest(folder)
    if with_manifest:
        from megatron.remoe.checkpoint.manifest import write_manifest

        write_manifest(folder)
    refused(root, f"{named}: .*{RUNS}", "with --ckpt-step 10")
    assert not mark.exists()
