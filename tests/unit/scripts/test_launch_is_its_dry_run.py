"""What runs is what the dry run shows; help; Megatron knows every flag."""

import argparse
import subprocess

import pytest

from launch_scripts import (
    METHODS,
    MOE,
    NINE,
    REMOE,
    SCRIPTS,
    dry_run,
    executable,
    make_data,
    name_of,
    start,
    take_apart,
)


def test_what_runs_is_what_the_dry_run_shows(tmp_path):
    make_data(tmp_path)
    executable(
        tmp_path / "torchrun",
        'printf "%q " env CUDA_DEVICE_MAX_CONNECTIONS="$CUDA_DEVICE_MAX_CONNECTIONS"'
        ' PYTORCH_CUDA_ALLOC_CONF="$PYTORCH_CUDA_ALLOC_CONF" torchrun "$@"; exit 7',
    )
    given = {"path": [tmp_path], "cwd": tmp_path, "DATA_ROOT": str(tmp_path), "RUN_ROOT": "my runs"}
    result = start(MOE, 4, **given)
    assert result.returncode == 7
    assert take_apart(result.stdout) == dry_run(MOE, 4, **given)
    assert (tmp_path / "my runs/remoe/llama_182m_moe_E8_k1_G1").is_dir()


def test_a_dry_run_writes_nothing(tmp_path):
    dry_run(REMOE, cwd=tmp_path, DATA_ROOT=str(tmp_path), RUN_ROOT=str(tmp_path / "runs"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("size", "method"), NINE)
def test_help_tells_size_loss_and_arguments(size, method):
    result = start(name_of(size, method), "--help")
    assert result.returncode == 0
    for word in (f"{size[:-1]}M", "Hardware:", "Time:", "Expected loss:", "GPUs per node [8]"):
        assert word in result.stdout


@pytest.mark.parametrize(
    "script", sorted(SCRIPTS.rglob("*.sh")), ids=lambda path: str(path.relative_to(SCRIPTS))
)
def test_bash_can_read_it(script):
    result = subprocess.run(["bash", "-n", script], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.fixture(scope="module")
def megatron_parser():
    """Megatron's own parser with the flags of this project (the import takes seconds)."""
    megatron_arguments = pytest.importorskip("megatron.training.arguments")
    from megatron.remoe.arguments import add_remoe_args

    parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False)
    return add_remoe_args(megatron_arguments.add_megatron_arguments(parser))


EVERY_BRANCH = [
    *[(name_of(size, method), {}) for size, method in NINE],
    *[("train_llama_tiny.sh", {"METHOD": method}) for method in METHODS],
    (REMOE, {"DATA_PATH": "mock", "TP": "2", "WANDB_API_KEY": "key"}),
    (REMOE, {"DATA_PATH": "0.7 /a 0.3 /b", "PP": "2", "CP": "2", "EP": "2"}),
]


@pytest.mark.parametrize(("script", "environment"), EVERY_BRANCH)
def test_megatron_knows_every_flag(megatron_parser, script, environment):
    args, unknown = megatron_parser.parse_known_args(dry_run(script, **environment).words)
    assert unknown == []
    assert args.seq_length == args.max_position_embeddings
    assert args.hidden_dropout == args.attention_dropout == 0
    assert not args.add_bias_linear
