"""Runs repeat bit for bit, and a resumed run equals an uninterrupted one."""

from pathlib import Path

from commands import RELU_MOE
from forked_commands import pretrain_each
from run_log.scalars import read_scalars

NAMES = ("lm loss", "moe_relu_l1_reg_coeff", "moe_relu_sparsity", "grad-norm")
# A coefficient that sparsity follows within a few steps, so that lambda moves both ways.
FAST = [*RELU_MOE, "--moe-relu-l1-reg-coeff-init", "1e-3"]


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """Logged values by name and iteration."""
    curves = read_scalars(folder).curves
    return {n: dict(zip(*map(list, curves[n]), strict=True)) for n in NAMES}


def test_same_seed_gives_the_same_bits_and_resuming_changes_none(tmp_path):
    checkpoint = tmp_path / "checkpoint"
    whole = [*FAST, "--train-iters", "12", "--tensorboard-dir", tmp_path / "whole"]
    parts = [*FAST, "--train-iters", "12", "--tensorboard-dir", tmp_path / "parts"]
    parts += ["--save", checkpoint, "--load", checkpoint, "--save-interval", "6"]
    for done in pretrain_each(whole, [*parts, "--exit-interval", "6"], parts):
        assert done.returncode == 0, done.stderr[-2000:]
    assert "loading distributed checkpoint" in done.stdout and "at iteration 6" in done.stdout

    whole, parts = scalars(tmp_path / "whole"), scalars(tmp_path / "parts")
    assert list(whole["lm loss"]) == list(range(1, 13))
    assert len(set(whole["moe_relu_l1_reg_coeff"].values())) > 6  # lambda did move
    assert whole == parts  # the first six are a repetition, the last six a resumption
