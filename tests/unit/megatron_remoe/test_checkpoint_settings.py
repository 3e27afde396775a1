"""A checkpoint of another model is refused before anything is built, each difference by its flag."""

import shutil
import warnings

import pytest
import torch

from commands import MOCK_DATA, TRACKER
from megatron.remoe.arguments import parse_and_validate_args  # noqa: F401  (cpu.enable comes first)
from megatron.remoe.checkpoint.agreement import differences
from megatron.remoe.checkpoint.restore_settings import OURS
from megatron.remoe.checkpoint.settings import CONTROLLER, FUNCTION, SCHEDULE, SHAPES
from megatron.remoe.checkpoint.stored_run import read_stored_run
from saved_runs import FOUR_STEPS, RUNS, TRAINING, without_lambda, words_for, write_torch

RELU = ["--moe-relu-routing", "--moe-relu-l1-reg-coeff-init"]
MOE = ["--num-experts", "--moe-router-topk"]
TOPK_ONLY = [
    "--moe-router-pre-softmax",
    "--moe-router-load-balancing-type",
    "--moe-aux-loss-coeff",
]
SHARED = "--moe-shared-expert-intermediate-size 64"
ADD_IT = "--moe-relu-routing: the checkpoint is a ReMoE model: add it"
NO_LAMBDA = (
    "--moe-relu-routing: the checkpoint is a TopK model and has no lambda: leave it out, or add"
)

# (saved run, words more, flags less, what the message says)
REFUSED = [
    ("remoe", "--moe-router-pre-softmax", RELU, ADD_IT),
    ("remoe", "", RELU + MOE, ADD_IT),
    ("remoe", "", RELU + MOE, "--num-experts: none here, 8 in the checkpoint"),
    ("granular", "--moe-router-pre-softmax", RELU[:1], ADD_IT),
    ("topk", "--moe-relu-routing", [], NO_LAMBDA),
    ("topk_torch", "--moe-relu-routing", [], NO_LAMBDA),
    ("dense", "--moe-relu-routing --num-experts 8", [], "--num-experts: 8 here, none in the"),
    ("dense", "--num-experts 8", [], "--num-experts: 8 here, none in the checkpoint"),
    ("topk", "", MOE[:1], "--num-experts: none here, 8 in the checkpoint"),
    ("remoe", "--num-experts 16", [], "--num-experts: 16 here, 8 in the checkpoint"),
    ("topk", "--num-experts 16", [], "--num-experts: 16 here, 8 in the checkpoint"),
    (
        "remoe",
        "--moe-granularity 2",
        [],
        "--num-experts: 16 here, 8 in the checkpoint (after --moe-granularity 2)",
    ),
    (
        "granular",
        "--moe-granularity 1",
        [],
        "--moe-ffn-hidden-size: 128 here, 64 in the checkpoint",
    ),
    ("remoe", "--ffn-hidden-size 256", [], "--moe-ffn-hidden-size: 256 here, 128 in the"),
    ("dense", "--ffn-hidden-size 256", [], "--ffn-hidden-size: 256 here, 128 in the checkpoint"),
    (
        "granular",
        "--ffn-hidden-size 256 --moe-ffn-hidden-size 128",
        [],
        "--ffn-hidden-size: 256 here, 128 in the checkpoint",
    ),
    ("remoe", "--moe-layer-freq 2", [], "--moe-layer-freq: [1, 0] here, [1, 1] in the checkpoint"),
    ("remoe", SHARED, [], "--moe-shared-expert-intermediate-size: 64 here, none in the checkpoint"),
    ("remoe", "--num-layers 3", [], "--num-layers: 3 here, 2 in the checkpoint"),
    ("remoe", "--hidden-size 128", [], "--hidden-size: 128 here, 64 in the checkpoint"),
    ("remoe", "--num-attention-heads 8", [], "--num-attention-heads: 8 here, 4 in the checkpoint"),
    (
        "remoe",
        "--group-query-attention --num-query-groups 2",
        [],
        "--num-query-groups: 2 here, 4 in the checkpoint",
    ),
    ("remoe", "--kv-channels 32", [], "--kv-channels: 32 here, 16 in the checkpoint"),
    ("remoe", "--normalization LayerNorm", [], "--normalization: LayerNorm here, RMSNorm in the"),
    ("remoe", "", ["--swiglu"], "--swiglu: off here, on in the checkpoint"),
    ("remoe", "", ["--disable-bias-linear"], "--disable-bias-linear: off here, on in the"),
    ("remoe", "--add-qkv-bias", [], "--add-qkv-bias: on here, off in the checkpoint"),
    ("granular", "", ["--qk-layernorm"], "--qk-layernorm: off here, on in the checkpoint"),
    (
        "remoe",
        "",
        ["--untie-embeddings-and-output-weights"],
        "--untie-embeddings-and-output-weights: off here, on in the checkpoint",
    ),
    (
        "remoe",
        "--position-embedding-type learned_absolute",
        [],
        "--position-embedding-type: learned_absolute here, rope in the checkpoint",
    ),
    ("remoe", "--rotary-base 500000", [], "--rotary-base: 500000 here, 10000 in the checkpoint"),
    ("remoe", "--norm-epsilon 1e-6", [], "--norm-epsilon: 1e-06 here, 1e-05 in the checkpoint"),
    ("topk", "--moe-router-topk 2", [], "--moe-router-topk: 2 here, 1 in the checkpoint"),
    (
        "topk",
        "--moe-router-score-function sigmoid",
        [],
        "--moe-router-score-function: sigmoid here, softmax in the checkpoint",
    ),
    ("remoe", "--vocab-size 1024", [], "has another vocabulary: the tokenizer has 1024 tokens"),
    (
        "topk_torch",
        "--moe-grouped-gemm",
        [],
        "--moe-grouped-gemm: on, with torch's experts here, off in the checkpoint, which is in "
        "format torch",
    ),
    ("remoe", "--lr 2e-3", [], "--lr: 0.002 here, 0.001 in the checkpoint"),
    ("remoe", "--train-iters 8", [], "in samples: 64 here, 32 in the checkpoint"),
    ("remoe", "--lr-warmup-iters 2", [], "--lr-warmup, in samples: 16 here, 0 in the checkpoint"),
    (
        "remoe",
        "--ckpt-format torch",
        [],
        "--ckpt-format torch: the checkpoint is in format torch_dist",
    ),
    # what is given beside --use-checkpoint-args stays, so that it is named, not overridden
    ("remoe", "--use-checkpoint-args --num-experts 4", [], "--num-experts: 4 here, 8 in the"),
    ("granular", "--use-checkpoint-args --moe-granularity 4", [], "--num-experts: 16 here, 8 in"),
    ("topk", "--use-checkpoint-args --moe-relu-routing", [], NO_LAMBDA),
    # the conflicts of what a checkpoint says are found too
    ("remoe", "--use-checkpoint-args --moe-router-fusion", RELU + MOE, "--moe-router-fusion: acts"),
]


@pytest.fixture
def loading(validated, saved_runs):
    """What a command line that loads a saved run comes to; lists the warnings that are ours."""

    def run(name, add="", drop=(), root=None):
        if "--moe-relu-routing" in add:
            drop = [*drop, *TOPK_ONLY] if name.startswith("topk") else drop
        words = [*words_for(name, add, drop), "--load", str(root or saved_runs / name)]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            args = validated(words)
        ours = [str(w.message) for w in caught if "megatron/remoe" in w.filename]
        return args, ours

    return run


@pytest.mark.parametrize(
    ("name", "add", "drop", "message"), REFUSED, ids=[f"{r[0]} {r[3]}" for r in REFUSED]
)
def test_a_checkpoint_of_another_model_is_refused_by_the_flag(loading, name, add, drop, message):
    with pytest.raises(ValueError) as error:
        loading(name, add, drop)
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["remoe", "granular", "topk", "topk_torch", "dense"])
def test_the_same_command_is_taken_without_a_word(loading, name):
    assert loading(name)[1] == []


@pytest.mark.parametrize("name", RUNS)
def test_use_checkpoint_args_needs_no_flag_of_a_model(validated, saved_runs, name):
    words = [*TRAINING, *FOUR_STEPS, *MOCK_DATA, "--use-checkpoint-args"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        args = validated([*words, "--load", str(saved_runs / name)])
    assert [w.message for w in caught if "megatron/remoe" in w.filename] == []
    stored = read_stored_run(saved_runs / name / "iter_0000004").args
    assert differences((*SHAPES, *FUNCTION, *CONTROLLER), args, stored) == []
    for ours in OURS:
        assert getattr(args, ours) == getattr(stored, ours)


def test_every_difference_is_in_one_message(loading):
    with pytest.raises(ValueError) as error:
        loading("remoe", "--num-experts 16 --rotary-base 7 --lr 1", ["--swiglu"])
    first, *lines = str(error.value).splitlines()
    assert first.endswith("iter_0000004 does not go with this command:")
    flags = [line.split(":")[0].strip() for line in lines[:-1]]
    assert flags == ["--swiglu", "--num-experts", "--rotary-base", "--lr"]
    assert "--override-opt-param-scheduler" in lines[-1]


@pytest.mark.parametrize(
    "add",
    [
        "--num-experts 8 --moe-granularity 1 --moe-router-topk 2 --moe-ffn-hidden-size 64",
        "--moe-layer-freq ([1]*1+[0]*1)",
    ],
    ids=["granularity multiplied out", "a pattern as a list"],
)
def test_another_way_to_write_the_same_model_is_no_difference(loading, add):
    assert loading("granular", add)[1] == []


@pytest.mark.parametrize(
    ("add", "message"),
    [
        ("--moe-router-topk 2", "--moe-router-topk: 2 here, 1 in the checkpoint"),
        (
            "--moe-relu-l1-reg-coeff-multiplier 1.1",
            "--moe-relu-l1-reg-coeff-multiplier: 1.1 here, 1.2 in the checkpoint",
        ),
        (
            "--moe-relu-load-balancing none",
            "--moe-relu-load-balancing: none here, micro-batch in the checkpoint",
        ),
        (
            "--moe-relu-l1-reg-coeff-init 1e-4",
            "--moe-relu-l1-reg-coeff-init has no effect: lambda goes on from",
        ),
        ("--finetune --rotary-base 500000", "--rotary-base: 500000 here, 10000 in the checkpoint"),
    ],
)
def test_what_may_be_changed_on_purpose_is_warned_of_in_one_line(loading, add, message):
    (warning,) = loading("remoe", add)[1]
    assert message in warning and "\n" not in warning


@pytest.mark.parametrize(
    "add",
    [
        "--train-iters 8 --override-opt-param-scheduler",
        "--lr 1 --use-checkpoint-opt-param-scheduler",
        "--lr 1 --no-load-optim",
        "--lr 1 --finetune",
        "--ckpt-format torch --auto-detect-ckpt-format",
    ],
)
def test_another_schedule_or_format_is_taken_where_the_flags_say_so(loading, add):
    assert loading("remoe", add)[1] == []


def test_restarting_needs_no_lambda_in_the_checkpoint(loading, saved_runs, tmp_path):
    old = without_lambda(saved_runs / "granular", tmp_path / "old")
    with pytest.raises(ValueError, match="--moe-relu-restart-l1-reg-coeff: the checkpoint has no"):
        loading("granular", root=old)
    assert loading("granular", "--moe-relu-restart-l1-reg-coeff", root=old)[1] == []
    topk = "--moe-relu-routing --moe-relu-restart-l1-reg-coeff"
    assert loading("topk", f"{topk} --no-load-optim")[1] == []
    with pytest.raises(ValueError, match="--no-load-optim: the checkpoint's optimizer holds"):
        loading("topk", topk)


def test_a_run_that_resumes_itself_restarts_once(loading, saved_runs):
    restart = "--moe-relu-restart-l1-reg-coeff --save-interval 10 --save"
    args, warned = loading("granular", f"{restart} {saved_runs}/granular")
    assert not args.moe_relu_restart_l1_reg_coeff
    assert "--moe-relu-restart-l1-reg-coeff has no effect" in warned[0]
    args, _ = loading("granular", f"{restart} {saved_runs}/other")
    assert args.moe_relu_restart_l1_reg_coeff


def test_a_run_that_will_resume_itself_restarts_from_a_pretrained_one(
    validated, saved_runs, tmp_path
):
    itself = f"--save {tmp_path} --load {tmp_path} --save-interval 10"
    itself += f" --pretrained-checkpoint {saved_runs}/granular"
    args = validated(words_for("granular", f"--moe-relu-restart-l1-reg-coeff {itself}"))
    assert args.moe_relu_restart_l1_reg_coeff


def test_restarting_without_a_checkpoint_is_warned_of(validated):
    with pytest.warns(UserWarning, match="--moe-relu-restart-l1-reg-coeff has no effect: no check"):
        validated(words_for("remoe", "--moe-relu-restart-l1-reg-coeff"))


def test_a_release_brings_neither_optimizer_nor_schedule(loading, saved_runs, tmp_path):
    root = shutil.copytree(saved_runs / "remoe", tmp_path / "root")
    (root / "iter_0000004").rename(root / "release")
    (root / TRACKER).write_text("release")
    assert loading("remoe", "--lr 1", root=root)[1] == []


def test_a_checkpoint_without_settings_is_judged_by_its_lambda(loading, saved_runs, tmp_path):
    file = saved_runs / "granular/iter_0000004/mp_rank_00/model_optim_rng.pt"
    state = torch.load(file, weights_only=True)
    del state["args"]
    root = write_torch(tmp_path / "converted", state)
    assert "holds no settings: they are not compared" in loading("granular", root=root)[1][0]
    with pytest.raises(ValueError, match="is a ReMoE model: add it"):
        loading("granular", "--moe-router-pre-softmax", RELU[:1], root=root)
    with pytest.raises(ValueError, match=r"--use-checkpoint-args: .* holds no settings"):
        loading("granular", "--use-checkpoint-args", root=root)


@pytest.mark.parametrize("pattern", [".metadata", "*.distcp", "mp_rank_00/*.pt"])
def test_settings_that_cannot_be_read_are_said_with_their_place(saved_runs, tmp_path, pattern):
    """A command finds the damage before; other callers come here."""
    name = "granular" if pattern.endswith(".pt") else "remoe"
    shutil.copytree(saved_runs / name, tmp_path / name)
    folder = tmp_path / name / "iter_0000004"
    (file,) = folder.glob(pattern)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(
        ValueError, match=r"iter_0000004.*: cannot read the settings stored there: ."
    ):
        read_stored_run(folder)


def test_each_setting_is_compared_under_a_flag_that_sets_it():
    from command_line import _parser

    for setting in (*SHAPES, *FUNCTION, *CONTROLLER, *SCHEDULE):
        if ", in samples" not in setting.flag:
            flag = setting.flag.split()[0]
            assert _parser()._option_string_actions[flag].dest == setting.name
