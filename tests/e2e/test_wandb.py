"""Weights & Biases gets the routing figures where it is asked for, without a network."""

import pytest

from commands import RELU_MOE
from forked_commands import pretrain_each

pytest.importorskip("wandb")


def test_wandb_offline_gets_the_routing_figures_only_when_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    flags = [*RELU_MOE, "--train-iters", "2", "--tensorboard-dir", str(tmp_path / "tensorboard")]
    wandb = "--wandb-project test --wandb-exp-name test --wandb-save-dir".split()
    for done in pretrain_each([*flags, *wandb, tmp_path / "asked"], flags):
        assert done.returncode == 0, done.stderr[-2000:]
    (record,) = tmp_path.rglob("*.wandb")
    assert record.is_relative_to(tmp_path / "asked")
    assert b"moe_relu_sparsity" in record.read_bytes()
