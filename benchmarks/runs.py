"""A training run that can be watched, killed and started again, and the comparison of two of them."""

import argparse
import io
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TRACKER = "latest_checkpointed_iteration.txt"
MODEL = (
    "--num-layers 2 --hidden-size 64 --ffn-hidden-size 128 --num-attention-heads 4 --seq-length 64 "
    "--max-position-embeddings 64 --micro-batch-size 4 --global-batch-size 8 --lr 1e-3 --bf16 "
    "--lr-decay-style cosine --swiglu --normalization RMSNorm --position-embedding-type rope "
    "--disable-bias-linear --attention-dropout 0.1 --hidden-dropout 0.1 "
    "--untie-embeddings-and-output-weights --eval-iters 1 --eval-interval 100000 --log-interval 1 "
    "--num-workers 0 --tensorboard-log-interval 1 --log-params-norm --mock-data "
    "--tokenizer-type NullTokenizer --vocab-size 512 --exit-signal-handler --moe-relu-routing "
    "--num-experts 8 --moe-router-topk 1 --moe-relu-l1-reg-coeff-init 1e-3"
).split()
LOGGED = re.compile(r"lm loss|moe_relu|grad-norm|params-norm|learning-rate|moe/")


class Run:
    """One folder with checkpoints, a log, and the scalars of every start."""

    def __init__(self, folder: Path, args: argparse.Namespace, startup: float = 0.0):
        folder.mkdir(parents=True)
        self.folder, self.args, self.startup = folder, args, startup
        self.checkpoints, self.log = folder / "checkpoints", folder / "log.txt"

    def start(self, number: int) -> None:
        """Start or resume."""
        command = [sys.executable]
        if self.args.ranks > 1:
            command += ["-m", "torch.distributed.run", "--standalone"]
            command += ["--nproc-per-node", str(self.args.ranks)]
        command += ["benchmarks/scalars_at_once.py", self.folder / f"{number:03}.scalars", *MODEL]
        command += ["--save", self.checkpoints, "--load", self.checkpoints]
        command += ["--save-interval", self.args.save_interval, "--train-iters", self.args.steps]
        command += ["--ckpt-format", self.args.ckpt_format]
        command += ["--tensorboard-dir", self.folder / "tensorboard"]
        if self.args.async_save:
            command += ["--async-save", "--use-persistent-ckpt-worker", "--async-strategy", "mcore"]
        self._position = self.log.stat().st_size if self.log.exists() else 0
        self._there = {path.name: path.stat().st_ino for path in self.checkpoints.glob("iter_*")}
        self.iteration = resumed_from(self.checkpoints)
        self._begin = time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                list(map(str, command)),
                cwd=ROOT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Wait for the end; raise if it is not a good one."""
        while self.process.poll() is None:
            self._watch()
        if self.process.returncode != 0:
            raise SystemExit(f"the run failed, see {self.log}:\n{self.log.read_text()[-3000:]}")

    def wait_for(self, kind: str, target: int, dice: random.Random) -> None:
        """Wait for a random moment of a kind, at or after an iteration."""
        if kind == "starting":
            time.sleep(dice.uniform(0, self.startup))
        elif kind == "saving":
            interval = self.args.save_interval
            first = -(-target // interval) * interval
            while not self._new_save(first):
                self._watch(0.0005)
            time.sleep(dice.uniform(0, 0.3))
        else:
            while self.iteration < target:
                self._watch()
            time.sleep(dice.uniform(0, 0.2))
        self._watch(0)

    def strike(self, kind: str, whom: str) -> None:
        """Send the signal and see that nothing of the run lives on."""
        if kind == "SIGTERM":
            self.process.terminate()
        elif whom == "all":
            os.killpg(self.process.pid, signal.SIGKILL)
        else:
            self.process.kill()
        code = self.process.wait(timeout=120)
        if kind == "SIGTERM" and self.args.ranks == 1 and code != 0:
            raise SystemExit(f"exit code {code} after SIGTERM, see {self.log}")
        deadline = time.monotonic() + 10
        while left := _of_session(self.process.pid):
            if time.monotonic() > deadline:
                raise SystemExit(f"processes live on after a kill: {left}")
            time.sleep(0.01)

    def _watch(self, pause: float = 0.02) -> None:
        """Follow the log; raise if the run ends with an error while it is watched."""
        time.sleep(pause)
        with self.log.open(errors="replace") as log:
            log.seek(self._position)
            found = re.findall(r" iteration +(\d+)/", log.read())
        if found:
            self.iteration = int(found[-1])
            self.startup = self.startup or time.monotonic() - self._begin
        if self.process.poll():
            self.wait()

    def in_a_save(self) -> bool:
        """Whether this start has begun a save that the tracker file does not name."""
        return self._new_save(resumed_from(self.checkpoints) + 1)

    def _new_save(self, first: int) -> bool:
        """Whether the folder of a save at or after an iteration has just been made."""
        for path in self.checkpoints.glob("iter_*"):
            if path.name.endswith(".replaced") or int(path.name[5:]) < first:
                continue
            try:
                if self._there.get(path.name) != path.stat().st_ino:
                    return True
            except FileNotFoundError:  # room is being made
                continue
        return False


def _of_session(session: int) -> list[str]:
    """Processes of a session that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = path.read_text().rsplit(")", 1)[1].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(words[3]) == session and words[0] != "Z":
            found.append(path.parent.name)
    return found


def resumed_from(checkpoints: Path) -> int:
    """The iteration that the tracker file names, 0 without one."""
    path = checkpoints / TRACKER
    return int(path.read_text()) if path.exists() else 0


def read_scalars_at_once(folder: Path) -> tuple[dict[tuple[int, str], str], int, int]:
    """Values to the bit by step and name; how many came more than once, and how many of these differ."""
    values: dict[tuple[int, str], str] = {}
    repeated = contradicting = 0
    for path in sorted(folder.glob("*.scalars")):
        for line in path.read_text().splitlines():
            step, name, value = line.split("\t")
            if not LOGGED.match(name) or name.endswith(("vs samples", "validation", "test")):
                continue
            key = (int(step), name)
            repeated += key in values
            contradicting += values.setdefault(key, value) != value
    return values, repeated, contradicting


def differing_entries(first: Path, second: Path) -> tuple[int, list[str]]:
    """Compare two checkpoints as saved, byte by byte, all but the arguments and the count of FLOPs.

    Returns:
        How many tensors and objects were compared, and the names of those that differ.
    """
    pieces = [_pieces(folder) for folder in (first, second)]
    names = sorted(pieces[0].keys() | pieces[1].keys())
    return len(names), [name for name in names if pieces[0].get(name) != pieces[1].get(name)]


def _pieces(folder: Path) -> dict[str, bytes]:
    import megatron.core  # noqa: F401  names the classes that Megatron saves as safe
    import torch

    from megatron.remoe.checkpoint.safe_unpickling import load_metadata

    if not (folder / ".metadata").exists():
        result = {}
        for path in sorted(folder.glob("mp_rank_*/*.pt")):
            state = torch.load(path, weights_only=True)
            result |= _leaves(_without_notes(state), path.parent.name)
        return result
    with (folder / ".metadata").open("rb") as file:
        index = load_metadata(file)
    result = {}
    for entry, place in index.storage_data.items():
        with (folder / place.relative_path).open("rb") as file:
            file.seek(place.offset)
            piece = file.read(place.length)
        if entry.fqn.startswith("common_state"):
            state = torch.load(io.BytesIO(piece), weights_only=True)[0]
            result |= _leaves(_without_notes(state), "common")
        else:
            result[f"{entry.fqn} {entry.offset}"] = piece
    return result


def _without_notes(state: dict) -> dict:
    """Leave out the arguments, which hold paths, and the count of FLOPs.

    The count takes the nominal number of active experts for the first step after each start.
    """
    notes = ("args", "num_floating_point_operations_so_far")
    return {key: value for key, value in state.items() if key not in notes}


def _leaves(value: object, name: str) -> dict[str, bytes]:
    import numpy as np
    import torch

    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, list | tuple):
        pairs = enumerate(value)
    elif torch.is_tensor(value):
        return {name: value.reshape(-1).view(torch.uint8).numpy().tobytes()}
    elif isinstance(value, np.ndarray):
        return {name: value.tobytes()}
    else:
        return {name: repr(value).encode()}
    return {k: v for key, part in pairs for k, v in _leaves(part, f"{name}.{key}").items()}
