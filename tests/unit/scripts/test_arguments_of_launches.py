"""Positional arguments and environment of the launch scripts."""

import pytest

from launch_scripts import DENSE, MOE, REMOE, REPO, dry_run, name_of, start, take_apart


def test_the_positional_arguments_take_effect():
    command = dry_run(REMOE, 4, 1000, 32, 64, 2, "sweep")
    assert command.torchrun["--nproc-per-node"] == ["4"]
    assert command.flags["--train-iters"] == ["1000"]
    assert command.flags["--micro-batch-size"] == ["32"]
    # Experts and width as they are at granularity 1: the flag splits them.
    assert command.flags["--num-experts"] == ["64"]
    assert command.flags["--moe-granularity"] == ["2"]
    assert command.flags["--moe-router-topk"] == ["1"]
    assert command.flags["--moe-ffn-hidden-size"] == ["3072"]
    assert command.flags["--save"] == [
        str(REPO / "runs/sweep/llama_182m_remoe_E64_k1_G2/checkpoints")
    ]


def test_argument_4_widens_a_dense_ffn():
    flags = dry_run(DENSE, "", "", "", 8).flags
    assert flags["--ffn-hidden-size"] == ["24576"]
    assert "dense_x8" in flags["--save"][0]


def test_an_empty_argument_keeps_its_default():
    assert dry_run(REMOE, "", "", "", 16).words == dry_run(REMOE, 8, 60000, 16, 16).words


def test_what_follows_the_sixth_argument_and_extra_args_go_to_megatron_last():
    more = ["--moe-layer-freq", "([0]+[1]*11)", "--eval-iters", "3"]
    command = dry_run(
        REMOE, "", "", "", "", "", "", *more, EXTRA_ARGS="--log-params-norm --exit-interval 9"
    )
    assert command.words[-7:] == [*more, "--log-params-norm", "--exit-interval", "9"]


def test_runs_of_different_shape_do_not_share_checkpoints():
    runs = [
        dry_run(REMOE),
        dry_run(MOE),
        dry_run(DENSE),
        dry_run(REMOE, "", "", "", 16),
        dry_run(REMOE, "", "", "", "", 2),
        dry_run(REMOE, TOPK="2"),
        dry_run(name_of("469m", "remoe")),
        dry_run(REMOE, RUN_NAME="alpha_1.5"),
        dry_run(REMOE, "", "", "", "", "", "other"),
    ]
    assert len({run.flags["--save"][0] for run in runs}) == len(runs)
    assert all(run.flags["--save"] == run.flags["--load"] for run in runs)


@pytest.mark.parametrize(
    ("environment", "flag", "value"),
    [
        ({"TOPK": "2"}, "--moe-router-topk", ["2"]),
        ({"L1_COEFF_INIT": "1e-4"}, "--moe-relu-l1-reg-coeff-init", ["1e-4"]),
        ({"L1_COEFF_MULTIPLIER": "1.05"}, "--moe-relu-l1-reg-coeff-multiplier", ["1.05"]),
        ({"EP": "4"}, "--expert-model-parallel-size", ["4"]),
        ({"TP": "2"}, "--tensor-model-parallel-size", ["2"]),
        ({"TP": "2"}, "--sequence-parallel", []),
        ({"PP": "2"}, "--pipeline-model-parallel-size", ["2"]),
        ({"CP": "2"}, "--context-parallel-size", ["2"]),
        ({"SEED": "7"}, "--seed", ["7"]),
        ({"SAVE_INTERVAL": "50"}, "--save-retain-interval", ["500"]),
        ({"RECOMPUTE": "full"}, "--recompute-granularity", ["full"]),
        ({"MOE_GROUPED_GEMM": "0"}, "--moe-grouped-gemm", None),
        ({"DISTRIBUTED_OPTIMIZER": "0"}, "--use-distributed-optimizer", None),
        ({"RECOMPUTE": "none"}, "--recompute-granularity", None),
        ({"PRECISION": "fp32"}, "--bf16", None),
    ],
)
def test_the_environment_takes_effect(environment, flag, value):
    assert dry_run(REMOE, **environment).flags.get(flag) == value


def test_data_root_and_run_root_move_what_is_read_and_written():
    flags = dry_run(REMOE, DATA_ROOT="/big/disk", RUN_ROOT="/fast disk").flags
    assert flags["--data-path"] == ["/big/disk/train_text_document"]
    assert flags["--tokenizer-model"] == ["/big/disk/gpt2_tokenizer"]
    run = "/fast disk/remoe/llama_182m_remoe_E8_k1_G1"
    assert flags["--save"] == flags["--load"] == [f"{run}/checkpoints"]
    assert flags["--tensorboard-dir"] == [f"{run}/tensorboard"]


def test_data_path_may_be_a_blend():
    flags = dry_run(REMOE, DATA_PATH="0.7 /a/web 0.3 /b/code").flags
    assert flags["--data-path"] == ["0.7", "/a/web", "0.3", "/b/code"]


def test_mock_data_needs_neither_data_nor_tokenizer():
    flags = dry_run(REMOE, DATA_PATH="mock").flags
    assert flags["--mock-data"] == []
    assert flags["--vocab-size"] == ["50257"]
    assert not flags.keys() & {"--data-path", "--split", "--tokenizer-model"}


def test_wandb_is_used_only_with_a_key():
    assert not [flag for flag in dry_run(REMOE).flags if "wandb" in flag]
    result = start(REMOE, *[""] * 5, "sweep", DRY_RUN="1", WANDB_API_KEY="secret-key")
    flags = take_apart(result.stdout).flags
    assert flags["--wandb-project"] == ["sweep"]
    assert flags["--wandb-exp-name"] == ["llama_182m_remoe_E8_k1_G1"]
    assert "secret-key" not in result.stdout + result.stderr


def test_a_variable_of_the_environment_is_not_overruled():
    environment = dry_run(REMOE, CUDA_DEVICE_MAX_CONNECTIONS="32").environment
    assert environment["CUDA_DEVICE_MAX_CONNECTIONS"] == "32"
