"""What is replaced in Megatron and torch so that a checkpoint is saved whole and loaded whole.

`guard_checkpoints` installs all of it; each replacement says what it replaces and why no slot would do.
It is idempotent. Object storage (`--enable-msc`) is left to Megatron.
"""

import functools
import multiprocessing
import os
import pickle
import signal
from argparse import Namespace
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.managers import SyncManager
from pathlib import Path
from types import SimpleNamespace

import torch
from megatron.core.dist_checkpointing.strategies import filesystem_async
from megatron.core.rerun_state_machine import Call, Caller, RerunValidationStatus
from megatron.training import checkpointing, get_args, training
from torch.distributed.checkpoint import CheckpointException, DefaultLoadPlanner, filesystem
from torch.distributed.checkpoint._nested_dict import set_element

from megatron.remoe.checkpoint import files, saving
from megatron.remoe.checkpoint.async_writer import never_wait_for_the_dead
from megatron.remoe.checkpoint.manifest import MANIFEST
from megatron.remoe.checkpoint.safe_unpickling import load_metadata
from megatron.remoe.processes import PARENT, die_with_parent

_installed = False


def guard_checkpoints() -> None:
    """Install every replacement, once a process."""
    global _installed
    if _installed:
        return
    _installed = True
    _read_without_running()
    checkpointing.maybe_msc = _Storage(checkpointing.maybe_msc)
    training.load_checkpoint = _checked(training.load_checkpoint)
    training.save_checkpoint = _saved_whole(training.save_checkpoint)
    training.maybe_finalize_async_save = _told(training.maybe_finalize_async_save)
    never_wait_for_the_dead()


def _read_without_running() -> None:
    """Replace the two places where torch's reader of distributed checkpoints unpickles anything.

    `FileSystemReader.read_metadata` calls `pickle.load` and `DefaultLoadPlanner.load_bytes` (common
    state, RNG, rerun state) calls `torch.load(weights_only=False)`; neither takes an option.
    """

    def load_bytes(self, read_item, value):
        loaded, name = torch.load(value, weights_only=True), read_item.dest_index.fqn
        if self.flatten_state_dict:
            set_element(self.original_state_dict, self.mappings[name], loaded)
        else:
            self.state_dict[name] = loaded

    # Plain tuples and an enumeration that the rerun machine saves and Megatron forgot to allow.
    torch.serialization.add_safe_globals([Call, Caller, RerunValidationStatus])
    DefaultLoadPlanner.load_bytes = load_bytes
    filesystem.pickle = SimpleNamespace(**vars(pickle) | {"load": load_metadata})


def start_helpers(async_save: bool) -> None:
    """Start the processes that saving needs, ahead of Megatron, out of the reach of SIGTERM.

    torchrun sends SIGTERM to the process group of each rank: a rank with `--exit-signal-handler` saves
    then, and needs them. They end with the rank.
    """
    handler = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # children inherit it
    try:
        _start_results_queue()
        if async_save:  # the writer will be a child of the fork server
            forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGTERM, handler)


def _start_results_queue() -> None:
    """Make the queue through which a save tells what it wrote.

    Replaces what `filesystem_async.get_write_results_queue` makes at the first save: a process that
    imports the whole training script (5 s on two cores, while training waits) and outlives a rank that
    is killed. This one is forked before there is anything to inherit, and dies with its parent.
    """
    if filesystem_async._results_queue is None:
        os.environ[PARENT] = str(os.getpid())
        manager = SyncManager(ctx=multiprocessing.get_context("fork"))
        manager.start(initializer=die_with_parent, initargs=(True,))
        filesystem_async._results_queue = manager.Queue()


class _Storage:
    """`checkpointing.maybe_msc`, which opens files: the tracker file is written last and whole.

    Megatron empties the tracker file before it writes it; a process killed in between leaves a run
    that ends at its next start without a word and with exit code 0. There is no slot between the last
    file of a checkpoint and the tracker file, where the manifest has to be written.
    """

    def __init__(self, original: object):
        self._original = original

    def __getattr__(self, name: str) -> object:
        return getattr(self._original, name)

    def open(self, path: str, mode: str = "r", *rest, **kwargs) -> object:
        """Open a file; the tracker file for writing in `saving.tracker_file`."""
        if mode == "w" and "://" not in path and Path(path).name == files.TRACKER:
            return saving.tracker_file(Path(path), hashes=_hashes(get_args()))
        return self._original.open(path, mode, *rest, **kwargs)


def _hashes(args: Namespace) -> bool:
    return not getattr(args, "no_verify_integrity", False)


def _checked(original: Callable) -> Callable:
    """`training.load_checkpoint`, once all ranks have found the files to be what was saved.

    Megatron's own `--verify-integrity` refuses every checkpoint that was saved without it, reads all
    of it on one rank, and does not know format `torch`.
    """

    @functools.wraps(original)
    def load_checkpoint(*args, **kwargs):
        options = get_args()
        folder = files.checkpoint_to_load(options)
        if options.ckpt_format in files.FORMATS:
            compare_names(folder)
            if folder and _hashes(options):
                compare_contents(folder)
        return original(*args, **kwargs)

    return load_checkpoint


def compare_names(folder: Path | None) -> None:
    """All ranks raise where one of them is about to load another iteration than the first."""
    names: list = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(names, folder and folder.name)
    for rank, name in enumerate(names):
        if name != names[0]:
            raise files.CheckpointError(
                f"--load: rank 0 sees {names[0] or 'no checkpoint'}, rank {rank} sees "
                f"{name or 'none'}: put checkpoints on storage that all nodes share"
            )


def compare_contents(folder: Path) -> None:
    """Read each file on one rank of the world; all ranks raise if one is wrong."""
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    if rank == 0 and not (folder / MANIFEST).exists():
        print(
            f"> ReMoE: {folder} has no {MANIFEST}: compared with the checksums of its "
            "archives only",
            flush=True,
        )
    found: list = [None] * world
    torch.distributed.all_gather_object(found, files.check_contents(folder, rank, world))
    wrong = next((what for what in found if what), None)
    if wrong:
        # The first rank looks for the newest good one, and all end with what it says.
        error = (
            files.refusal(folder.parent, f"{folder}: {wrong}", but=folder) if rank == 0 else None
        )
        told = [error and str(error)]
        torch.distributed.broadcast_object_list(told)
        raise files.CheckpointError(told[0])


def _saved_whole(original: Callable) -> Callable:
    """`training.save_checkpoint` into a folder that holds nothing of an earlier save.

    Megatron writes over what an interrupted save left, so that the files of both are mixed; a slot
    there is none. A failure to write is told in one line.
    """

    @functools.wraps(original)
    def save_checkpoint(iteration, *args, **kwargs):
        options = get_args()
        if not kwargs.get("non_persistent_ckpt") and options.ckpt_format in files.FORMATS:
            if torch.distributed.get_rank() == 0:
                release = kwargs.get("release", False)
                name = "release" if release else f"iter_{iteration:07d}"
                saving.make_room(Path(options.save, name))
            torch.distributed.barrier()
        return original(iteration, *args, **kwargs)

    return _told(save_checkpoint)


def _told(original: Callable) -> Callable:
    """A function that writes a checkpoint; where it cannot, `CheckpointError` says so."""

    @functools.wraps(original)
    def write(*args, **kwargs):
        try:
            return original(*args, **kwargs)
        except (OSError, CheckpointException, RuntimeError) as error:
            if not saving.is_about_files(error):
                raise
            raise saving.not_saved(Path(get_args().save), error) from error

    return write
