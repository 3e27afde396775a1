"""Runs repeat bit for bit, and a resumed run equals an uninterrupted one."""

from pathlib import Path

import numpy as np
import torch
from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

from commands import RELU_MOE, TINY_MODEL
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


def write_blend(folder: Path) -> list[str]:
    """Two data sets of random tokens; a blend holds not one sample more than is asked for."""
    prefixes = [str(folder / name) for name in ("first", "second")]
    for seed, prefix in enumerate(prefixes):
        writer = IndexedDatasetBuilder(f"{prefix}.bin", dtype=np.int32)
        writer.add_document(
            torch.from_numpy(np.random.default_rng(seed).integers(0, 500, 8000)), [8000]
        )
        writer.finalize(f"{prefix}.idx")
    blend = f"--train-data-path 1 {prefixes[0]} 1 {prefixes[1]} --valid-data-path {prefixes[0]}"
    return [*blend.split(), "--tokenizer-type", "NullTokenizer", "--vocab-size", "512"]


def test_a_finished_run_that_is_asked_again_evaluates_and_ends_well(tmp_path):
    checkpoint = ["--save", tmp_path, "--load", tmp_path, "--save-interval", "4"]
    run = [*FAST, *write_blend(tmp_path), *checkpoint, "--train-iters", "4"]
    by_samples = [*run[:-2], "--train-samples", "32"]
    first, again, in_samples = pretrain_each(run, run, by_samples, model=TINY_MODEL)
    assert first.returncode == 0, first.stderr[-2000:]
    for done in (again, in_samples):
        assert done.returncode == 0, done.stderr[-2000:]
        assert "has every step of --train-" in done.stdout
        assert "validation set" in done.stdout and "iteration        5/" not in done.stdout
