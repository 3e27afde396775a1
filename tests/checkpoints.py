"""Small checkpoints of both formats, and ways to damage one."""

import os
import pickle
import shutil
from argparse import Namespace
from io import BytesIO

import torch

from commands import TRACKER
from ranks_gpt import save_checkpoint

GOOD, BAD = 10, 20  # iterations; the tracker file names the second


def save_root(root, checkpoint_format):
    """A folder for `--load` with two whole checkpoints, as the guarded saving leaves it."""
    from megatron.remoe.checkpoint.saving import tracker_file

    for iteration in (GOOD, BAD):
        folder = root / f"iter_{iteration:07d}"
        folder.mkdir(parents=True)
        if checkpoint_format == "torch_dist":
            save_checkpoint(folder, None, {"num_layers": 1, "moe_layer_freq": 1}, {1: 1e-3})
        else:
            for rank in ("mp_rank_00", "mp_rank_01"):
                (folder / rank).mkdir()
                state = {"model": {"weight": torch.arange(4096.0)}, "args": Namespace(seed=1)}
                torch.save(state, folder / rank / "model_optim_rng.pt")
        with tracker_file(root / TRACKER) as tracker:
            tracker.write(str(iteration))


def options(root, **changes):
    """What the checks read of the arguments."""
    defaults = {
        "load": str(root),
        "save": None,
        "pretrained_checkpoint": None,
        "ckpt_step": None,
        "exit_on_missing_checkpoint": False,
        "ckpt_format": "torch_dist",
    }
    return Namespace(**{**defaults, **changes})


class Bomb:
    """Pickles as a call of `touch`."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


def write(path, content=b""):
    path.write_bytes(content)


def truncate(path, keep=0.5):
    os.truncate(path, int(path.stat().st_size * keep))


def flip(path, where):
    """Invert one bit at a fraction of the file."""
    content = bytearray(path.read_bytes())
    content[int(where * (len(content) - 1))] ^= 1
    path.write_bytes(content)


def flip_after(path, mark):
    """Invert one bit of what stands behind the first `mark` in the file."""
    content = bytearray(path.read_bytes())
    content[content.index(mark) + len(mark) + 1] ^= 1
    path.write_bytes(content)


def without_manifest(folder):
    (folder / "integrity.json").unlink()


def replace_object(folder, fqn, payload):
    """Let the index name an archive of `payload` as the object `fqn`, as who writes both files can."""
    with (folder / ".metadata").open("rb") as file:
        index = pickle.load(file)
    entry = next(entry for entry in index.storage_data if entry.fqn.startswith(fqn))
    place = index.storage_data[entry]
    archive = BytesIO()
    torch.save(payload, archive)
    data = folder / place.relative_path
    place.offset, place.length = data.stat().st_size, len(archive.getvalue())
    with data.open("ab") as file:
        file.write(archive.getvalue())
    (folder / ".metadata").write_bytes(pickle.dumps(index))


def rename_data(folder, name):
    """Let the index name another data file."""
    with (folder / ".metadata").open("rb") as file:
        index = pickle.load(file)
    for place in index.storage_data.values():
        place.relative_path = name
    (folder / ".metadata").write_bytes(pickle.dumps(index))


def remove(folder):
    shutil.rmtree(folder)
