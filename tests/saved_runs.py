"""Checkpoints of every kind of model, each saved by a whole command, once a session.

Every run takes four steps and saves after two and four, so that `--ckpt-step 2` and the same flags
repeat its second half.
"""

from pathlib import Path

import torch

from commands import RELU_MOE, TINY_MODEL, TOPK_MOE, TRACKER
from forked_commands import pretrain_each

FOUR_STEPS = ["--train-iters", "4"]
# A coefficient that sparsity follows within a few steps.
FAST = ["--moe-relu-l1-reg-coeff-init", "1e-3"]
GRANULAR = [
    *("--moe-relu-routing --num-experts 4 --moe-router-topk 1 --moe-granularity 2").split(),
    *("--moe-relu-l1-reg-coeff-init 1e-2 --moe-relu-l1-reg-coeff-multiplier 1.5").split(),
    *("--moe-relu-load-balancing none --moe-layer-freq 2 --qk-layernorm").split(),
]

# By name: the model's flags, the format.
RUNS = {
    "remoe": ([*RELU_MOE, *FAST], "torch_dist"),
    "granular": (GRANULAR, "torch"),
    "topk": (TOPK_MOE, "torch_dist"),
    "topk_torch": (TOPK_MOE, "torch"),
    "dense": ([], "torch_dist"),
}
# What is not of the model, as it is given again beside --use-checkpoint-args.
TRAINING = (
    "--micro-batch-size 4 --global-batch-size 8 --lr 1e-3 --lr-decay-style constant "
    "--attention-dropout 0 --hidden-dropout 0 --eval-iters 1 --eval-interval 1000 --log-interval 1 "
    "--num-workers 0 --tensorboard-log-interval 1"
).split()


def saving(folder, name):
    """The flags with which a run is saved."""
    flags, form = RUNS[name]
    where = ["--save", str(folder / name), "--save-interval", "2", "--ckpt-format", form]
    return [*flags, *FOUR_STEPS, *where, "--tensorboard-dir", str(folder / "log" / name)]


def save_all(folder):
    """Save all `RUNS` under a folder."""
    for done in pretrain_each(*(saving(folder, name) for name in RUNS)):
        assert done.returncode == 0, done.stderr[-2000:]
    return folder


def words_for(name, add="", drop=()):
    """The command line of a saved run with some words more and some flags less."""
    flags, form = RUNS[name]
    words = [*TINY_MODEL, *flags, *FOUR_STEPS, "--ckpt-format", form, "--mock-data"]
    words += ["--tokenizer-type", "NullTokenizer", "--vocab-size", "512"]
    for flag in drop:
        i = words.index(flag)
        end = i + 1
        while end < len(words) and not words[end].startswith("--"):
            end += 1
        del words[i:end]
    return [*words, *add.split()]


def without_lambda(root: Path, folder: Path) -> Path:
    """A copy of a run in format torch as it was before lambda was saved."""
    file = "iter_0000004/mp_rank_00/model_optim_rng.pt"
    state = torch.load(root / file, weights_only=True)
    state["model"] = {k: v for k, v in state["model"].items() if "reg_coeff" not in k}
    return write_torch(folder, state)


def write_torch(folder: Path, state: dict) -> Path:
    """A checkpoint of iteration 4 in format torch."""
    (folder / "iter_0000004/mp_rank_00").mkdir(parents=True)
    torch.save(state, folder / "iter_0000004/mp_rank_00/model_optim_rng.pt")
    (folder / TRACKER).write_text("4")
    return folder
