"""What a resumed command takes from its checkpoint, what it refuses, and how lambda starts anew."""

import pytest

from commands import MOCK_DATA, RELU_MOE
from forked_commands import pretrain_each
from run_log.scalars import read_scalars
from saved_runs import FAST, FOUR_STEPS, TRAINING, words_for

NAMES = ("lm loss", "moe_relu_l1_reg_coeff", "moe_relu_sparsity", "grad-norm")
RESTART = "--moe-relu-restart-l1-reg-coeff"
FROM_CHECKPOINT = [*TRAINING, *FOUR_STEPS, *MOCK_DATA, "--use-checkpoint-args"]


def commands(saved, new):
    """The commands of this module by name, in an order in which each finds what it loads."""
    result = {}
    for name in ("remoe", "granular"):
        half = ["--load", f"{saved}/{name}", "--ckpt-step", "2"]
        result[f"{name} from its settings"] = [*FROM_CHECKPOINT, *half]
    for name, form in (("topk", "torch_dist"), ("topk_torch", "torch")):
        words = [*words_for("dense"), *RELU_MOE, *FAST, "--ckpt-format", form]
        half = ["--load", f"{saved}/{name}", "--ckpt-step", "2", RESTART, "--no-load-optim"]
        save = ["--save", f"{new}/{name}", "--save-interval", "1"]
        result[f"{name} restarted"] = [*words, *half, *save]
        result[f"{name} resumed"] = [*words, "--load", f"{new}/{name}", "--ckpt-step", "3"]
    half = ["--load", f"{saved}/remoe", "--ckpt-step", "2", RESTART]
    result["remoe restarted"] = [*words_for("remoe"), *half]
    result["ReMoE as TopK"] = words_for("topk", f"--load {saved}/remoe")
    result["TopK as ReMoE"] = words_for("remoe", f"--load {saved}/topk")
    other = ["--num-experts", "4", "--load", f"{saved}/remoe"]
    result["other experts"] = [*FROM_CHECKPOINT, *other]
    return {
        name: [*words, "--tensorboard-dir", f"{new}/log/{name}"] for name, words in result.items()
    }


@pytest.fixture(scope="module")
def runs(saved_runs, tmp_path_factory):
    new = tmp_path_factory.mktemp("resumed")
    words = commands(saved_runs, new)
    done = dict(zip(words, pretrain_each(*words.values(), model=()), strict=True))

    def scalars_of(name):
        assert done[name].returncode == 0, done[name].stderr[-2000:]
        return scalars(new / "log" / name)

    return done, scalars_of


def scalars(folder, first=1):
    """Logged values by name and iteration, from the first that is asked for."""
    curves = read_scalars(folder).curves
    rows = {name: zip(*map(list, curves[name]), strict=True) for name in NAMES}
    return {name: {i: v for i, v in row if i >= first} for name, row in rows.items()}


@pytest.mark.parametrize("name", ["remoe", "granular"])
def test_use_checkpoint_args_restores_the_model_and_its_regulariser_to_the_bit(
    runs, saved_runs, name
):
    """Granularity, alpha, balancing, layer pattern ... in both formats, without a flag of a model."""
    whole = scalars(saved_runs / "log" / name, first=3)
    assert list(whole["lm loss"]) == [3, 4]
    assert runs[1](f"{name} from its settings") == whole


@pytest.mark.parametrize("name", ["topk", "topk_torch"])
def test_a_topk_model_goes_on_by_relu_routing_and_keeps_its_new_lambda(runs, name):
    restarted = runs[1](f"{name} restarted")
    assert restarted["moe_relu_l1_reg_coeff"] == pytest.approx({3: 1e-3, 4: 1.2e-3})
    last = {curve: {4: values[4]} for curve, values in restarted.items()}
    assert runs[1](f"{name} resumed") == last


def test_a_schedule_is_restarted_where_the_checkpoint_has_a_lambda(runs):
    coeffs = runs[1]("remoe restarted")["moe_relu_l1_reg_coeff"]
    assert coeffs == pytest.approx({3: 1e-3, 4: 1.2e-3})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ReMoE as TopK", "--moe-relu-routing: the checkpoint is a ReMoE model: add it"),
        ("TopK as ReMoE", f"or add {RESTART} to train it on by ReLU routing"),
        ("other experts", "--num-experts: 4 here, 8 in the checkpoint"),
    ],
)
def test_another_model_ends_in_one_message_before_a_model_is_built(runs, name, message):
    done = runs[0][name]
    assert done.returncode == 2, done.stderr[-2000:]
    assert message in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.count("pretrain_gpt.py: the checkpoint ") == 1
    assert "number of parameters" not in done.stdout
