"""The launch scripts, by their dry runs: what they would start, and what they refuse in one line."""

import argparse
import os
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

REPO = Path(__file__).parents[3]
SCRIPTS = REPO / "scripts"

# The paper's hyper-parameters (arXiv 2412.14711, section 4.1 and its public launch scripts).
SIZES = {
    "182m": {"layers": 12, "hidden": 768, "ffn": 3072, "heads": 12, "groups": 4},
    "469m": {"layers": 24, "hidden": 1024, "ffn": 4096, "heads": 16, "groups": 4},
    "978m": {"layers": 24, "hidden": 1536, "ffn": 6144, "heads": 16, "groups": 4},
}
METHODS = ("dense", "moe", "remoe")
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
PATHS = ("--data-path", "--tokenizer-model", "--tensorboard-dir", "--save", "--load")

NINE = [(size, method) for size in SIZES for method in METHODS]
nine = pytest.mark.parametrize(("size", "method"), NINE)


@dataclass
class Command:
    """One torchrun command, taken apart."""

    environment: dict[str, str]
    torchrun: dict[str, list[str]]
    program: str
    flags: dict[str, list[str]]
    words: list[str]


def group(words):
    """`--a 1 2 --b` -> `{"--a": ["1", "2"], "--b": []}`; a later flag replaces an earlier one."""
    flags = {}
    for word in words:
        if word.startswith("--"):
            current = flags[word] = []
        else:
            current.append(word)
    return flags


def take_apart(line):
    words = shlex.split(line)
    assert words[0] == "env"
    at = words.index("torchrun")
    program = next(i for i, word in enumerate(words) if word.endswith(".py"))
    return Command(
        environment=dict(word.split("=", 1) for word in words[1:at]),
        torchrun=group(words[at + 1 : program]),
        program=words[program],
        flags=group(words[program + 1 :]),
        words=words[program + 1 :],
    )


def start(script, *arguments, cwd=REPO, path=(), **environment):
    """Run a script with nothing in its environment but a PATH and what the test gives."""
    search = os.pathsep.join([*map(str, path), "/usr/local/bin", "/usr/bin", "/bin"])
    return subprocess.run(
        [SCRIPTS / script, *map(str, arguments)],
        env={"PATH": search, **environment},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def dry_run(script, *arguments, **kwargs):
    result = start(script, *arguments, DRY_RUN="1", **kwargs)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count("\n") == 1
    return take_apart(result.stdout)


def refusal(script, *arguments, **kwargs):
    """The one line on stderr of a script that refuses to start."""
    result = start(script, *arguments, **kwargs)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    name, message = result.stderr.strip().split(": ", 1)
    assert name == script
    return message


def name_of(size, method):
    return f"train_llama_{size}_{method}.sh"


REMOE = name_of("182m", "remoe")
MOE = name_of("182m", "moe")
DENSE = name_of("182m", "dense")


def executable(path, text):
    path.write_text("#!/bin/bash\n" + text)
    path.chmod(0o755)
    return path


# The recipe


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


# What the caller chooses


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


# Several nodes


def test_nodes_by_torchruns_own_variables():
    nodes = {"NNODES": "4", "NODE_RANK": "3", "MASTER_ADDR": "node0", "MASTER_PORT": "1234"}
    assert dry_run(REMOE, **nodes).torchrun == {
        "--nproc-per-node": ["8"],
        "--nnodes": ["4"],
        "--node-rank": ["3"],
        "--master-addr": ["node0"],
        "--master-port": ["1234"],
    }


def slurm_step(tmp_path, **changes):
    """What srun sets in a step of one task on each of two nodes, with a scontrol that knows them."""
    executable(
        tmp_path / "scontrol", '[[ $* == "show hostnames gpu[7-8]" ]] && echo gpu7 && echo gpu8'
    )
    step = {
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_STEP_NUM_NODES": "2",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NODELIST": "gpu[7-8]",
        "SLURM_NODEID": "1",
    }
    return {"path": [tmp_path], **step, **changes}


def test_nodes_by_slurm(tmp_path):
    assert dry_run(REMOE, **slurm_step(tmp_path)).torchrun == {
        "--nproc-per-node": ["8"],
        "--nnodes": ["2"],
        "--node-rank": ["1"],
        "--master-addr": ["gpu7"],
        "--master-port": ["29500"],
    }


def test_a_given_master_address_is_not_looked_up(tmp_path):
    step = slurm_step(tmp_path, SLURM_STEP_NODELIST="unknown", MASTER_ADDR="10.0.0.1")
    assert dry_run(REMOE, **step).torchrun["--master-addr"] == ["10.0.0.1"]


def test_a_slurm_step_on_one_node_needs_no_address(tmp_path):
    step = slurm_step(tmp_path, SLURM_STEP_NUM_NODES="1", SLURM_STEP_NUM_TASKS="1")
    assert "--standalone" in dry_run(REMOE, **step).torchrun


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"SLURM_STEP_NUM_TASKS": "16"}, "16 tasks on 2 nodes: use --ntasks-per-node=1"),
        ({"SLURM_STEP_NODELIST": "unknown"}, "set MASTER_ADDR"),
        ({"SLURM_STEP_NUM_NODES": ""}, "this job has 2 nodes: start the script by srun"),
    ],
    ids=["a task for each GPU", "scontrol fails", "no srun in a job of two nodes"],
)
def test_a_slurm_job_that_would_hang_is_refused(tmp_path, changes, message):
    assert message in refusal(REMOE, **slurm_step(tmp_path, **changes))


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "needs MASTER_ADDR"),
        ({"MASTER_ADDR": "a"}, "needs a NODE_RANK from 0 to 1, got ''"),
        ({"MASTER_ADDR": "a", "NODE_RANK": "2"}, "needs a NODE_RANK from 0 to 1, got '2'"),
        ({"MASTER_ADDR": "a", "NODE_RANK": "x"}, "needs a NODE_RANK from 0 to 1, got 'x'"),
        ({"NNODES": "two"}, "NNODES must be a positive integer, got 'two'"),
    ],
)
def test_half_given_nodes_are_refused(environment, message):
    assert message in refusal(REMOE, **{"NNODES": "2", **environment})


# What is refused


@pytest.mark.parametrize("wrong", ["x", "0", "-1", "1.5", "1e3", "08", "--lr"])
@pytest.mark.parametrize(
    ("position", "what"),
    [
        (1, "GPUs per node"),
        (2, "iterations"),
        (3, "micro batch"),
        (4, "experts"),
        (5, "granularity"),
    ],
)
def test_a_positional_argument_that_is_no_number_is_named(position, what, wrong):
    message = refusal(REMOE, *[""] * (position - 1), wrong)
    assert message == f"argument {position} ({what}) must be a positive integer, got '{wrong}'"


def test_argument_4_of_a_dense_model_is_named_as_what_it_is():
    assert "argument 4 (FFN expansion)" in refusal(DENSE, "", "", "", "x")


@pytest.mark.parametrize(
    ("script", "arguments", "environment", "message"),
    [
        (REMOE, [3], {}, "GLOBAL_BATCH_SIZE=512 is not a multiple of micro batch x data-parallel"),
        (REMOE, [8, "", 128], {}, "= 128 x 8 = 1024: change argument 1"),
        (REMOE, [6], {"TP": "4"}, "6 GPUs are not a multiple of TP x PP x CP = 4 x 1 x 1 = 4"),
        (REMOE, ["", "", "", 6], {"EP": "4"}, "EP=4 does not divide the 6 experts"),
        (REMOE, ["", "", "", "", 5], {}, "granularity) is 5, which does not divide the FFN width"),
        (DENSE, ["", "", "", "", 2], {}, "granularity) is 2, but a dense model has no experts"),
        (REMOE, [], {"TP": "x"}, "TP must be a positive integer, got 'x'"),
        (REMOE, [], {"GLOBAL_BATCH_SIZE": "0"}, "GLOBAL_BATCH_SIZE must be a positive integer"),
        (REMOE, [], {"RECOMPUTE": "all"}, "RECOMPUTE must be none, moe or full, got 'all'"),
        (REMOE, [], {"PRECISION": "fp8"}, "PRECISION must be bf16 or fp32, got 'fp8'"),
        ("train_llama_tiny.sh", [], {"METHOD": "hash"}, "METHOD must be dense, moe or remoe"),
    ],
)
def test_what_cannot_work_is_refused_before_torchrun(script, arguments, environment, message):
    assert message in refusal(script, *arguments, **environment)
    assert message in refusal(script, *arguments, DRY_RUN="1", **environment)


def test_experts_are_split_before_they_are_spread():
    assert dry_run(REMOE, "", "", "", 2, 2, EP="4").flags["--num-experts"] == ["2"]


def make_data(folder):
    for name in ("train_text_document.bin", "train_text_document.idx"):
        (folder / name).touch()
    (folder / "gpt2_tokenizer").mkdir()


@pytest.mark.parametrize("lost", ["train_text_document.bin", "train_text_document.idx"])
def test_missing_data_is_one_line_that_says_what_to_do(tmp_path, lost):
    make_data(tmp_path)
    (tmp_path / lost).unlink()
    message = refusal(REMOE, DATA_ROOT=str(tmp_path), RUN_ROOT=str(tmp_path / "runs"))
    assert message == (
        f"no data set at {tmp_path}/train_text_document.{{bin,idx}}: "
        "run scripts/prepare_data.sh, or set DATA_PATH or DATA_ROOT"
    )
    assert not (tmp_path / "runs").exists()


def test_the_missing_part_of_a_blend_is_named(tmp_path):
    make_data(tmp_path)
    blend = f"0.7 {tmp_path}/train_text_document 3e-1 {tmp_path}/code"
    assert f"no data set at {tmp_path}/code." in refusal(
        REMOE, DATA_ROOT=str(tmp_path), DATA_PATH=blend
    )


def test_a_missing_tokenizer_is_named(tmp_path):
    make_data(tmp_path)
    (tmp_path / "gpt2_tokenizer").rmdir()
    assert "no tokenizer at" in refusal(REMOE, DATA_ROOT=str(tmp_path))


def test_a_missing_torchrun_is_named(tmp_path):
    make_data(tmp_path)
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("bash", "env", "dirname"):
        (tools / tool).symlink_to(Path("/usr/bin") / tool)
    result = subprocess.run(
        ["/bin/bash", SCRIPTS / REMOE],
        env={"PATH": str(tools), "DATA_ROOT": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "torchrun is not on PATH" in result.stderr


# The real thing, with a torchrun that only says what it was given


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


@nine
def test_help_tells_size_loss_and_arguments(size, method):
    result = start(name_of(size, method), "--help")
    assert result.returncode == 0
    for word in (f"{size[:-1]}M", "Hardware:", "Time:", "Expected loss:", "GPUs per node [8]"):
        assert word in result.stdout


# The CPU-sized twin


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


def test_the_tiny_twin_takes_the_same_arguments():
    command = dry_run("train_llama_tiny.sh", 2, 5, 4, 16, 2, "try")
    assert command.torchrun["--nproc-per-node"] == ["2"]
    assert command.flags["--train-iters"] == ["5"]
    assert command.flags["--num-experts"] == ["16"]
    assert "/try/llama_tiny_remoe_E16_k1_G2/" in command.flags["--save"][0]


# All scripts


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


# Data


def test_prepare_data_makes_what_the_recipes_read(tmp_path):
    result = start(
        "prepare_data.sh",
        __file__,
        tmp_path,
        "--skip-bad",
        DRY_RUN="1",
        DATA_ROOT=str(tmp_path / "new"),
        WORKERS="3",
    )
    assert (result.returncode, result.stderr) == (0, "")
    tokenizer, _, preprocess = map(shlex.split, result.stdout.splitlines())
    flags = dry_run(REMOE, DATA_ROOT=str(tmp_path / "new")).flags
    assert tokenizer[1:] == [
        str(REPO / "tools/make_gpt2_tokenizer.py"),
        "--output-dir",
        *flags["--tokenizer-model"],
    ]
    given = group(preprocess[2:])
    assert given["--tokenizer-model"] == flags["--tokenizer-model"]
    assert given["--input"] == [__file__, str(tmp_path)]
    assert given["--workers"] == ["3"]
    assert given["--append-eod"] == given["--skip-bad"] == []
    assert [f"{given['--output-prefix'][0]}_{given['--json-keys'][0]}_document"] == flags[
        "--data-path"
    ]


def test_prepare_data_uses_the_tokenizer_that_is_there(tmp_path):
    (tmp_path / "gpt2_tokenizer").mkdir()
    result = start("prepare_data.sh", __file__, DRY_RUN="1", DATA_ROOT=str(tmp_path))
    assert result.returncode == 0
    assert "make_gpt2_tokenizer" not in result.stdout


def test_prepare_data_names_a_data_set_as_the_recipes_do(tmp_path):
    prepared = start(
        "prepare_data.sh", __file__, DRY_RUN="1", DATA_ROOT=str(tmp_path), DATA_NAME="web"
    )
    prefix = group(shlex.split(prepared.stdout.splitlines()[-1])[2:])["--output-prefix"][0]
    flags = dry_run(REMOE, DATA_ROOT=str(tmp_path), DATA_NAME="web").flags
    assert flags["--data-path"] == [f"{prefix}_text_document"]


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        ([], {}, "argument 1 must be a JSON-lines file, or a folder of them"),
        (["--skip-bad"], {}, "argument 1 must be a JSON-lines file, or a folder of them"),
        (["/nowhere.jsonl"], {}, "cannot read /nowhere.jsonl"),
        ([__file__], {"WORKERS": "all"}, "WORKERS must be a positive integer, got 'all'"),
        ([__file__], {"TOKENIZER_MODEL": "/typo"}, "no tokenizer at TOKENIZER_MODEL=/typo"),
    ],
)
def test_prepare_data_refuses_in_one_line(arguments, environment, message):
    assert refusal("prepare_data.sh", *arguments, **environment) == message
