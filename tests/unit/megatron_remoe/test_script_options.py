"""Options that the training script would have to carry out, and those that it cannot go without."""

import sys

import pytest

from command_line import MODEL, parse
from megatron.remoe.arguments import parse_and_validate_args
from megatron.remoe.script_options import NOT_HERE, REQUIRED, check_script_options

IGNORED = [
    "--sft",
    "--fim-data",
    "--dataloader-inter-document-masking",
    "--hybrid-context-parallel",
    "--per-dataset-sequences-path file",
    "--dataloader-fast-cache-load",
    "--freeze-all-layers",
    "--check-for-spiky-loss",
    "--mtp-num-layers 1",
]


def complaint(words):
    with pytest.raises(ValueError, match="these options cannot be trained with") as error:
        check_script_options(parse(words)[0])
    return str(error.value)


def without(flag):
    """The plain command without one option and its value."""
    i = MODEL.index(flag)
    return MODEL[:i] + MODEL[i + 2 :]


def test_the_plain_command_is_complete():
    check_script_options(parse(MODEL)[0])


@pytest.mark.parametrize("words", IGNORED)
def test_what_would_be_ignored_is_refused(words):
    flag = words.split()[0]
    message = complaint([*MODEL, *words.split()])
    assert f"{flag}: pretrain_gpt.py here does not carry it out: leave it out" in message


def test_a_ramp_that_megatron_ignores_is_refused():
    message = complaint([*MODEL, "--rampup-batch-size", "2", "2", "100"])
    assert "--rampup-batch-size: Megatron ignores it: give --step-batch-size-schedule" in message


def test_every_rule_has_a_row():
    assert {flag for _, flag in NOT_HERE} == {words.split()[0] for words in IGNORED}


@pytest.mark.parametrize("flag", [flag for _, flag in REQUIRED if flag in MODEL])
def test_what_is_missing_is_named(flag):
    assert f"{flag}: give it" in complaint(without(flag))


def test_the_number_of_steps_must_be_given_in_one_way_or_the_other():
    words = without("--train-iters")
    assert "--train-iters (or --train-samples)" in complaint(words)
    check_script_options(parse([*words, "--train-samples", "8"])[0])


def test_data_must_be_given_in_one_way_or_the_other():
    words = [word for word in MODEL if word != "--mock-data"]
    assert "--data-path: give the prefix of indexed data, or --mock-data" in complaint(words)
    for flag in ("--data-path", "--train-data-path", "--data-args-path"):
        check_script_options(parse([*words, flag, "x"])[0])


def test_the_settings_of_a_checkpoint_need_a_checkpoint():
    check_script_options(parse([*MODEL, "--use-checkpoint-args", "--load", "x"])[0])
    assert "--use-checkpoint-args: needs --load" in complaint(["--use-checkpoint-args"])


def test_saving_needs_an_interval():
    assert "--save: needs --save-interval" in complaint([*MODEL, "--save", "x"])
    check_script_options(parse([*MODEL, "--save", "x", "--save-interval", "5"])[0])


def test_a_mode_that_megatron_offers_and_does_not_know_is_refused():
    """Its parser says report_stats, its state machine report_determinism_stats: a traceback."""
    assert "--rerun-mode report_stats: " in complaint([*MODEL, "--rerun-mode", "report_stats"])
    check_script_options(parse([*MODEL, "--rerun-mode", "disabled"])[0])


def test_everything_comes_in_one_message():
    words = [*(w for w in without("--lr") if w != "--mock-data"), "--sft"]
    assert complaint(words).count("\n") == 3


def test_a_yaml_configuration_is_refused_by_name(monkeypatch, tmp_path):
    """Megatron replaces all arguments by the file's, ours among them."""
    (tmp_path / "model.yaml").write_text("language_model: {num_layers: 2}\n")
    words = [*MODEL, "--yaml-cfg", str(tmp_path / "model.yaml")]
    monkeypatch.setattr(sys, "argv", ["pretrain_gpt.py", *words])
    with pytest.raises(ValueError, match="--yaml-cfg"):
        parse_and_validate_args()


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf"])
def test_a_peak_must_be_a_speed(value):
    message = complaint([*MODEL, "--log-throughput", f"--peak-tflops={value}"])
    assert f"--peak-tflops {value}: give the TFLOP/s of one device, above 0" in message


def test_a_peak_that_nothing_is_divided_by_is_refused():
    message = complaint([*MODEL, "--peak-tflops", "989.4"])
    assert "--peak-tflops: has no effect without --log-throughput: add it" in message
    check_script_options(parse([*MODEL, "--peak-tflops", "989.4", "--log-throughput"])[0])


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (
            ["--tensor-model-parallel-size", "2"],
            "tensor parallelism needs that of --micro-batch-size",
        ),
        (["--moe-routing", "expert-choice"], "chooses within it"),
    ],
)
def test_another_micro_batch_in_evaluation_is_refused_where_it_would_change_the_result(
    words, reason
):
    with pytest.raises(ValueError, match=f"--eval-micro-batch-size 1: .*{reason}"):
        check_script_options(parse([*MODEL, *words, "--eval-micro-batch-size", "1"])[0])
    check_script_options(parse([*MODEL, "--eval-micro-batch-size", "1"])[0])
