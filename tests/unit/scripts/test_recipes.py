"""The recipes are the paper's, flag by flag."""

import pytest

from launch_scripts import METHODS, REPO, SIZES, dry_run, name_of

TOTAL_PARAMETERS_E8 = {"182m": "777M", "469m": "2.58B", "978m": "5.73B"}
COMMON = {
    "--seq-length": ["1024"],
    "--max-position-embeddings": ["1024"],
    "--position-embedding-type": ["rope"],
    "--rotary-base": ["1000000"],
    "--normalization": ["RMSNorm"],
    "--swiglu": [],
    "--disable-bias-linear": [],
    "--init-method-std": ["0.01"],
    "--attention-dropout": ["0"],
    "--hidden-dropout": ["0"],
    "--group-query-attention": [],
    "--untie-embeddings-and-output-weights": [],
    "--make-vocab-size-divisible-by": ["1024"],
    "--split": ["969,30,1"],
    "--tokenizer-type": ["HuggingFaceTokenizer"],
    "--train-iters": ["60000"],
    "--micro-batch-size": ["16"],
    "--global-batch-size": ["512"],
    "--lr": ["5e-4"],
    "--min-lr": ["5e-5"],
    "--lr-decay-style": ["cosine"],
    "--lr-warmup-fraction": ["0.01"],
    "--clip-grad": ["1.0"],
    "--optimizer": ["adam"],
    "--adam-beta1": ["0.9"],
    "--adam-beta2": ["0.999"],
    "--adam-eps": ["1e-8"],
    "--weight-decay": ["0.01"],
    "--seed": ["1234"],
    "--bf16": [],
    "--use-distributed-optimizer": [],
    "--overlap-grad-reduce": [],
    "--overlap-param-gather": [],
    "--tensor-model-parallel-size": ["1"],
    "--pipeline-model-parallel-size": ["1"],
    "--context-parallel-size": ["1"],
    "--expert-model-parallel-size": ["1"],
}
EXPERTS = {
    "--num-experts": ["8"],
    "--moe-router-topk": ["1"],
    "--moe-granularity": ["1"],
    "--moe-router-dtype": ["fp32"],
    "--moe-token-dispatcher-type": ["alltoall"],
    "--moe-grouped-gemm": [],
}
ROUTING = {
    "dense": {},
    "moe": {
        **EXPERTS,
        "--moe-router-pre-softmax": [],
        "--moe-router-load-balancing-type": ["aux_loss"],
        "--moe-aux-loss-coeff": ["0.01"],
    },
    "remoe": {
        **EXPERTS,
        "--moe-relu-routing": [],
        "--moe-relu-l1-reg-coeff-init": ["1e-8"],
        "--moe-relu-l1-reg-coeff-multiplier": ["1.2"],
    },
}
RECOMPUTE_MOE = {"--recompute-granularity": ["selective"], "--recompute-modules": ["moe"]}
RECOMPUTE_FULL = {
    "--recompute-granularity": ["full"],
    "--recompute-method": ["uniform"],
    "--recompute-num-layers": ["1"],
}
# Places and intervals are ours to choose; the paper names none.
LOGGING = {
    "--log-interval": ["10"],
    "--log-throughput": [],
    "--eval-interval": ["1000"],
    "--eval-iters": ["10"],
    "--save-interval": ["1000"],
    "--save-retain-interval": ["10000"],
}
NINE = [(size, method) for size in SIZES for method in METHODS]
PATHS = ("--data-path", "--tokenizer-model", "--tensorboard-dir", "--save", "--load")
nine = pytest.mark.parametrize(("size", "method"), NINE)


@nine
def test_the_defaults_are_the_papers_and_nothing_else(size, method):
    shape = SIZES[size]
    expected = {
        **COMMON,
        **LOGGING,
        **ROUTING[method],
        "--num-layers": [str(shape["layers"])],
        "--hidden-size": [str(shape["hidden"])],
        "--ffn-hidden-size": [str(shape["ffn"])],
        "--num-attention-heads": [str(shape["heads"])],
        "--num-query-groups": [str(shape["groups"])],
    }
    if method != "dense":
        expected["--moe-ffn-hidden-size"] = [str(shape["ffn"])]
    if size != "182m":
        expected |= RECOMPUTE_FULL
    elif method != "dense":
        expected |= RECOMPUTE_MOE
    command = dry_run(name_of(size, method))
    assert {k: v for k, v in command.flags.items() if k not in PATHS} == expected
    assert set(command.flags) - set(expected) == set(PATHS)


@nine
def test_no_flag_is_given_twice(size, method):
    words = [word for word in dry_run(name_of(size, method)).words if word.startswith("--")]
    assert len(words) == len(set(words))


@pytest.mark.parametrize("size", SIZES)
def test_the_sizes_add_up_to_the_papers_parameter_counts(size):
    flags = dry_run(name_of(size, "remoe")).flags
    layers, hidden, ffn, heads, groups, experts = (
        int(flags[flag][0])
        for flag in (
            "--num-layers",
            "--hidden-size",
            "--ffn-hidden-size",
            "--num-attention-heads",
            "--num-query-groups",
            "--num-experts",
        )
    )
    attention = 2 * hidden**2 * (1 + groups / heads)
    embeddings = 2 * 51200 * hidden
    dense = layers * (attention + 3 * hidden * ffn) + embeddings
    total = dense + (experts - 1) * layers * 3 * hidden * ffn
    assert abs(dense / 1e6 - int(size[:-1])) < 1
    in_words = f"{total / 1e6:.0f}M" if total < 1e9 else f"{total / 1e9:.2f}B"
    assert in_words == TOTAL_PARAMETERS_E8[size]


@nine
def test_it_runs_on_eight_gpus_of_this_machine(size, method):
    command = dry_run(name_of(size, method))
    assert command.torchrun == {"--nproc-per-node": ["8"], "--standalone": []}
    assert command.program == str(REPO / "pretrain_gpt.py")
    assert command.environment == {
        "CUDA_DEVICE_MAX_CONNECTIONS": "1",
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    }


@pytest.mark.parametrize("size", SIZES)
def test_moe_and_remoe_differ_only_in_how_they_route(size):
    topk, relu = (dry_run(name_of(size, m)).flags for m in ("moe", "remoe"))
    differ = {k for k in topk.keys() | relu.keys() if topk.get(k) != relu.get(k)}
    routing = ROUTING["moe"].keys() ^ ROUTING["remoe"].keys()
    assert differ == routing | {"--tensorboard-dir", "--save", "--load"}


@pytest.mark.parametrize("method", METHODS)
def test_the_tiny_twin_differs_from_the_real_one_in_size_only(method):
    """In its sizes, and in what a CPU does without: bf16 and what needs TransformerEngine."""
    tiny = dry_run("train_llama_tiny.sh", METHOD=method).flags
    real = dry_run(name_of("182m", method), RECOMPUTE="none").flags
    needs_a_gpu = {
        "--bf16",
        "--moe-grouped-gemm",
        "--use-distributed-optimizer",
        "--overlap-grad-reduce",
        "--overlap-param-gather",
    }
    assert tiny.keys() == real.keys() - needs_a_gpu
    routing = ROUTING[method].keys() - needs_a_gpu
    assert {k: tiny[k] for k in routing} == {k: real[k] for k in routing}


@pytest.mark.parametrize("method", METHODS)
def test_the_nano_twin_differs_from_the_tiny_one_in_size_and_grouped_experts(method):
    nano = dry_run("train_llama_nano.sh", METHOD=method).flags
    tiny = dry_run("train_llama_tiny.sh", METHOD=method).flags
    assert nano.keys() - {"--moe-grouped-gemm"} == tiny.keys()
    shape = ("--num-layers", "--hidden-size", "--ffn-hidden-size", "--lr-warmup-fraction")
    assert [nano[flag] for flag in shape] == [["4"], ["64"], ["256"], ["0.05"]]


@pytest.mark.parametrize("method", METHODS)
def test_the_small_recipe_differs_from_the_182m_one_in_size_and_warm_up_only(method):
    small = dry_run("train_llama_small.sh", METHOD=method).flags
    real = dry_run(name_of("182m", method), RECOMPUTE="none", DISTRIBUTED_OPTIMIZER="0").flags
    assert small.keys() == real.keys()
    shape = ("--num-layers", "--hidden-size", "--ffn-hidden-size", "--global-batch-size")
    assert [small[flag] for flag in shape] == [["8"], ["384"], ["1536"], ["32"]]


def test_the_tiny_twin_takes_the_same_arguments():
    command = dry_run("train_llama_tiny.sh", 2, 5, 4, 16, 2, "try")
    assert command.torchrun["--nproc-per-node"] == ["2"]
    assert command.flags["--train-iters"] == ["5"]
    assert command.flags["--num-experts"] == ["16"]
    assert "/try/llama_tiny_remoe_E16_k1_G2/" in command.flags["--save"][0]
