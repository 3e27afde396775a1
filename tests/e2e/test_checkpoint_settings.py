"""What a resumed command takes from its checkpoint, what it refuses, and how lambda starts anew."""

import pytest

from commands import MOCK_DATA, RELU_MOE
from forked_commands import pretrain_each
from run_log.scalars import read_scalars
from saved_runs import FAST, TRAINING, words_for

NAMES = ("lm loss", "moe_relu_l1_reg_coeff", "moe_relu_sparsity", "grad-norm")
RESTART = "--moe-relu-restart-l1-reg-coeff"
RELU = [*RELU_MOE, *FAST]


def scalars(folder, first=1):
    """Logged values by name and iteration, from the first that is asked for."""
    curves = read_scalars(folder).curves
    rows = {name: zip(*map(list, curves[name]), strict=True) for name in NAMES}
    return {name: {i: v for i, v in row if i >= first} for name, row in rows.items()}


def run(*commands):
    """Each command on mock data; all must end well."""
    for done in pretrain_each(*([*MOCK_DATA, *words] for words in commands), model=()):
        assert done.returncode == 0, done.stderr[-2000:]


def test_use_checkpoint_args_restores_the_model_and_its_regulariser_to_the_bit(
    saved_runs, tmp_path
):
    """Granularity, alpha, balancing, layer pattern ... in both formats, without a flag of a model."""
    names = ("remoe", "granular")
    words = [*TRAINING, "--train-iters", "4", "--use-checkpoint-args", "--ckpt-step", "2", "--load"]
    run(
        *(
            [*words, str(saved_runs / name), "--tensorboard-dir", str(tmp_path / name)]
            for name in names
        )
    )
    for name in names:
        whole, resumed = scalars(saved_runs / "log" / name, 3), scalars(tmp_path / name)
        assert list(whole["lm loss"]) == [3, 4]
        assert resumed == whole


@pytest.mark.parametrize("name", ["topk", "topk_torch"])
def test_a_topk_model_goes_on_by_relu_routing_and_keeps_its_new_lambda(saved_runs, tmp_path, name):
    words = [
        *words_for("dense"),
        *RELU,
        "--ckpt-format",
        "torch" if "torch" in name else "torch_dist",
    ]
    new = tmp_path / "new"
    load = ["--load", str(saved_runs / name), "--ckpt-step", "2", RESTART]
    run(
        [
            *words,
            *load,
            "--save",
            str(new),
            "--save-interval",
            "1",
            "--tensorboard-dir",
            f"{new}/log",
        ],
        [*words, "--load", str(new), "--ckpt-step", "3", "--tensorboard-dir", f"{new}/resumed"],
    )
    restarted = scalars(new / "log")
    coeffs = restarted["moe_relu_l1_reg_coeff"]
    assert coeffs == pytest.approx({3: 1e-3, 4: 1.2e-3})
    assert scalars(new / "resumed") == {name: {4: row[4]} for name, row in restarted.items()}


def test_a_schedule_is_restarted_where_the_checkpoint_has_a_lambda(saved_runs, tmp_path):
    load = ["--load", str(saved_runs / "remoe"), "--ckpt-step", "2"]
    log = ["--tensorboard-dir", str(tmp_path)]
    run([*words_for("remoe"), *load, *log, RESTART])
    assert scalars(tmp_path)["moe_relu_l1_reg_coeff"] == pytest.approx({3: 1e-3, 4: 1.2e-3})


def test_a_checkpoint_of_another_model_ends_in_one_message_before_a_model_is_built(saved_runs):
    wrong = {
        "--moe-relu-routing: the checkpoint is a ReMoE model: add it": words_for(
            "topk", f"--load {saved_runs}/remoe"
        ),
        f"or add {RESTART} to train it on by ReLU routing": words_for(
            "remoe", f"--load {saved_runs}/topk"
        ),
        "--num-experts: 4 here, 8 in the checkpoint": [
            *TRAINING,
            *["--train-iters", "4", "--use-checkpoint-args", "--num-experts", "4", *MOCK_DATA],
            *["--load", str(saved_runs / "remoe")],
        ],
    }
    for message, done in zip(wrong, pretrain_each(*wrong.values(), model=()), strict=True):
        assert done.returncode == 2, done.stderr[-2000:]
        assert message in done.stderr and "Traceback" not in done.stderr
        assert done.stderr.count("pretrain_gpt.py: the checkpoint ") == 1
        assert "number of parameters" not in done.stdout
