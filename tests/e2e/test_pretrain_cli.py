"""`pretrain_gpt.py` trains every kind of model, and says what is wrong in one message."""

import pytest

from commands import MOCK_DATA, RELU_MOE, TINY_MODEL, TOPK_MOE, pretrain
from forked_commands import pretrain_each

BAD_INPUT = {
    "conflicts": (
        [*RELU_MOE, "--moe-expert-capacity-factor", "1", "--moe-router-num-groups", "2"],
        ["--moe-expert-capacity-factor: ", "--moe-router-num-groups: ", "leave it out"],
    ),
    "gpu-only": (
        [*RELU_MOE, "--transformer-impl", "transformer_engine"],
        ["--transformer-impl: needs ", "leave it out"],
    ),
    "save": (["--save", "no/folder"], ["--save: needs --save-interval"]),
    "unwritable": (
        ["--tensorboard-dir", "README.md/x"],
        ["--tensorboard-dir README.md/x: cannot write to "],
    ),
    "not-here": (["--sft"], ["--sft: pretrain_gpt.py here does not carry it out"]),
    "granularity": (
        [*RELU_MOE, "--moe-granularity", "3"],
        ["--moe-granularity 3: does not divide the expert width 128"],
    ),
}


@pytest.fixture(scope="module")
def done():
    """The commands of one process that train on mock data, or do not get so far, by name."""
    commands = {
        "relu": [*RELU_MOE, "--train-iters", "3", "--log-throughput"],
        "dense": ["--train-iters", "2"],
        "topk": [*TOPK_MOE, "--train-iters", "2"],
        **{name: [*flags, "--train-iters", "1"] for name, (flags, _) in BAD_INPUT.items()},
    }
    done = pretrain_each(*commands.values(), model=(*TINY_MODEL, *MOCK_DATA))
    return dict(zip(commands, done, strict=True))


def test_relu_routed_model_trains_and_logs_its_routing(done):
    done = done["relu"]
    assert done.returncode == 0, done.stderr[-2000:]
    assert "> ReMoE: on the CPU, no CUDA device found" in done.stdout
    last = next(line for line in done.stdout.splitlines() if "iteration        3/" in line)
    for name in (
        "moe_relu_sparsity: 0.",
        "moe_relu_l1_reg_coeff: 1.4400E-08",  # 1e-8 * 1.2^2: two steps were taken before
        "moe_relu_l1_reg_loss: ",
        "moe_relu_active_experts: ",
        "moe_relu_dead_experts: 0",
        "moe_relu_tokens_without_expert: ",
        "throughput per GPU",
    ):
        assert name in last
    assert "validation loss at iteration 3" in done.stdout


@pytest.mark.parametrize("model", ["dense", "topk"])
def test_baselines_train_without_a_trace_of_relu_routing(done, model):
    done = done[model]
    assert done.returncode == 0, done.stderr[-2000:]
    assert "iteration        2/" in done.stdout
    assert "moe_relu_sparsity" not in done.stdout.split("before the start of training step")[1]


@pytest.mark.parametrize(
    "flags",
    [
        "--expert-model-parallel-size 2 --moe-token-dispatcher-type alltoall",
        "--pipeline-model-parallel-size 2 --moe-token-dispatcher-type allgather --bf16",
    ],
    ids=["ep2-alltoall", "pp2-allgather-bf16"],
)
def test_relu_routed_model_trains_on_two_ranks(flags):
    done = pretrain(*RELU_MOE, *flags.split(), "--train-iters", "2", "--log-throughput", ranks=2)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "moe_relu_l1_reg_coeff: 1.2000E-08" in done.stdout
    assert done.stdout.count("tokens-per-second: ") == 2 + 2  # steps; validation and test set
    assert done.stdout.count(" evaluated 512 tokens |") == 2
    assert done.stdout.count("give --peak-tflops") == 1


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_ends_in_one_message_without_traceback(done, name):
    done = done[name]
    assert done.returncode == 2
    for text in BAD_INPUT[name][1]:
        assert text in done.stderr
    assert "Traceback" not in done.stderr
