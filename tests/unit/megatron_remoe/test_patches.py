"""TFLOP/s from the experts that were active, and Megatron's start from the wheel."""

import contextlib
from argparse import Namespace

import pytest
from megatron.core.datasets import utils
from megatron.training import training

from command_line import MODEL, MOE, REMOE
from megatron.remoe.patches import (
    count_flops_of_active_experts,
    use_prebuilt_helpers,
    watch_evaluations,
    wrap_training_steps,
)


@pytest.fixture
def original(monkeypatch):
    """Megatron's count; whatever a test puts in its place goes with the test."""
    count = training.num_floating_point_operations
    count = getattr(count, "remoe_original", count)
    monkeypatch.setattr(training, "num_floating_point_operations", count)
    return count


@pytest.fixture
def args(validated):
    args = validated([*REMOE, "--swiglu", "--moe-layer-freq", "2"])
    args.padded_vocab_size = 512
    return args


def with_topk(args, topk):
    args.moe_router_topk = topk
    return args


@pytest.mark.parametrize("active", [1, 2, 8])
def test_measured_experts_count_like_that_topk(original, args, active):
    count_flops_of_active_experts(lambda: float(active))
    measured = training.num_floating_point_operations(args, 4)
    assert args.moe_router_topk == 2, "the arguments are left alone"
    assert measured == original(with_topk(args, active), 4)


def test_a_mean_over_layers_and_tokens_is_exact(original, args):
    """The count is linear in k: 2.5 lies midway between 2 and 3, and 0 leaves the dense part."""
    count_flops_of_active_experts(lambda: 2.5)
    between = training.num_floating_point_operations(args, 4)
    counts = [original(with_topk(args, k), 4) for k in (2, 3)]
    assert between == pytest.approx(sum(counts) / 2, rel=1e-12)
    assert counts[0] < between < counts[1]


def test_nothing_measured_is_the_nominal_count(original, args):
    count_flops_of_active_experts(lambda: None)
    assert training.num_floating_point_operations(args, 4) == original(args, 4)


def test_it_follows_what_is_measured(original, args):
    active = [None]
    count_flops_of_active_experts(lambda: active[0])
    nominal = training.num_floating_point_operations(args, 4)
    active[0] = 8.0
    assert training.num_floating_point_operations(args, 4) > nominal


def test_patching_again_replaces_the_last_patch(original, args):
    """A second model in one process must not be counted through the first one's figures."""
    for active in (8.0, 1.0):
        count_flops_of_active_experts(lambda active=active: active)
    assert training.num_floating_point_operations.remoe_original is original
    assert training.num_floating_point_operations(args, 4) == original(with_topk(args, 1), 4)


@pytest.mark.parametrize("model", [MODEL, [*MODEL, *MOE]], ids=["dense", "TopK"])
def test_other_models_never_meet_the_patch(original, validated, model):
    from megatron.remoe.model_config import gpt_config_from_args

    gpt_config_from_args(validated(model))
    assert training.num_floating_point_operations is original


def test_the_wheels_helpers_are_not_compiled(monkeypatch):
    def compile_helpers():
        pytest.fail("runs make in the installed package")

    monkeypatch.setattr(utils, "compile_helpers", compile_helpers)
    use_prebuilt_helpers()
    utils.compile_helpers()


def test_a_checkout_without_built_helpers_still_compiles(monkeypatch):
    import sys

    calls = []
    monkeypatch.setattr(utils, "compile_helpers", lambda: calls.append(1))
    monkeypatch.setitem(sys.modules, "megatron.core.datasets.helpers_cpp", None)
    monkeypatch.delattr("megatron.core.datasets.helpers_cpp", raising=False)
    use_prebuilt_helpers()
    utils.compile_helpers()
    assert calls == [1]


def test_steps_are_wrapped_once_however_often_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(training, "get_forward_backward_func", lambda pipeline=None: f"f{pipeline}")
    for number in (1, 2):
        wrap_training_steps(lambda function, number=number: (number, function))
    assert training.get_forward_backward_func(pipeline=3) == (2, "f3")


def test_an_evaluation_is_watched_through_its_slot_and_leaves_it_to_the_caller(monkeypatch):
    """Two validation sets; a second watch takes the place of the first."""
    seen = []

    def evaluate_and_print(prefix, step, data, model, iteration, *, non_loss_data_func=None):
        for _ in data:
            seen.append(non_loss_data_func(model))

    @contextlib.contextmanager
    def watch(iteration, is_test, num_sets):
        seen.append((iteration, is_test, num_sets))
        yield lambda: seen.append("end of set")

    monkeypatch.setattr(training, "evaluate_and_print_results", evaluate_and_print)
    monkeypatch.setattr(training, "get_args", lambda: Namespace(multiple_validation_sets=True))
    watch_evaluations(lambda *args: pytest.fail("replaced"))
    watch_evaluations(watch)
    training.evaluate_and_print_results("iteration 7", None, ["a", "b"], "model", 7)
    assert seen == [(7, False, 2), *["end of set", None] * 2]
    del seen[:]
    training.evaluate_and_print_results(
        "iteration 7 on test set", None, ["a"], "model", 7, non_loss_data_func=str.upper
    )
    assert seen == [(7, True, 1), "end of set", "MODEL"]
