"""What is counted in evaluation: the routers' maps, and nothing that training knows of."""

from argparse import Namespace

import pytest
import torch
from megatron.training import training as megatron_training

from megatron.remoe.patches import watch_evaluation
from megatron.remoe.throughput import evaluation
from megatron.remoe.throughput.evaluation import RoutingCounter, report_evaluation
from moe_layers import build_layer, make_config

E = 8


@pytest.fixture
def layer(single_rank):
    torch.manual_seed(0)
    return build_layer(make_config(E, 2)).eval()


def hidden_states(sequence=8, batch=2):
    return torch.randn(sequence, batch, 32, generator=torch.Generator().manual_seed(1))


def naive_means(layer, x, valid):
    """Token by token."""
    active = tokens = without = 0
    for row, is_valid in zip(x.reshape(-1, 32), valid.reshape(-1), strict=True):
        if is_valid:
            experts = sum(float(row @ w) > 0 for w in layer.router.weight)
            active, tokens, without = active + experts, tokens + 1, without + (experts == 0)
    return active / tokens, without / tokens


@pytest.mark.parametrize("padded", [0, 3, 8], ids=["none", "some", "a whole sequence"])
def test_means_equal_a_naive_count_without_padding(layer, padded):
    x = hidden_states()
    x[5:] = -layer.router.weight.sum(0) * 10  # tokens that hardly any expert wants
    padding = torch.zeros(2, 8, dtype=torch.bool)  # [b, s], True = padding
    padding[0, 8 - padded :] = True
    with torch.no_grad(), RoutingCounter([layer]) as routing:
        layer(x, padding_mask=padding)
    assert routing.means() == naive_means(layer, x, ~padding.t())


def test_batches_and_layers_add_up_before_they_are_divided(single_rank):
    torch.manual_seed(0)
    layers = torch.nn.ModuleList(build_layer(make_config(E, 2), n) for n in (1, 2)).eval()
    long, short = hidden_states(12), hidden_states(4) * -1
    with torch.no_grad(), RoutingCounter([layers]) as routing:
        for layer in layers:
            layer(long), layer(short)
    x = torch.cat([long, short])
    each = [naive_means(layer, x, torch.ones(x.shape[:2])) for layer in layers]
    assert routing.means() == pytest.approx(tuple(sum(m) / 2 for m in zip(*each, strict=True)))


def test_training_neither_sees_nor_pays_for_it(layer):
    before = {name: value.clone() for name, value in layer.named_buffers()}
    with torch.no_grad(), RoutingCounter([layer]) as routing:
        layer(hidden_states())
    assert all(torch.equal(value, before[name]) for name, value in layer.named_buffers())
    assert not layer.router._forward_hooks
    seen = routing.means()
    layer.train()(hidden_states())
    assert routing.means() == seen


def test_counting_reads_nothing_on_the_host(layer, host_reads):
    routing = RoutingCounter([layer])
    with torch.no_grad(), routing:
        output = layer.router(hidden_states())
        with host_reads:
            routing._count(layer.router, (None, None), {}, output)
    assert not host_reads.names


def test_a_dense_model_has_no_active_experts(single_rank):
    with RoutingCounter([torch.nn.Linear(2, 2)]) as routing:
        pass
    assert routing.means() is None


@pytest.fixture
def evaluate(monkeypatch, capsys):
    """Evaluate two batches of 3 sequences of 8 tokens; gives what was printed."""
    args = Namespace(seq_length=8, consumed_valid_samples=100, world_size=1)
    monkeypatch.setattr(evaluation, "get_args", lambda: args)
    monkeypatch.setattr(evaluation, "print_rank_last", print)

    def run(forward_step, data, model, *rest, **kwargs):
        for _ in range(2):
            forward_step(model)
            args.consumed_valid_samples += 3
        return {"lm loss": 1.0}, None, False

    def flops(args, samples, active):
        return 1e12 * samples * (0 if active is None else active)

    monkeypatch.setattr(megatron_training, "evaluate", run)
    monkeypatch.setattr(evaluation, "forward_flops", flops)
    times = iter([10.0, 10.5, 20.0, 20.5])
    monkeypatch.setattr(evaluation.time, "perf_counter", lambda: next(times))
    watch_evaluation(lambda model: report_evaluation(model, peak_tflops=100.0))

    def evaluate(model, forward_step):
        with torch.no_grad():
            assert megatron_training.evaluate(forward_step, None, model)[0] == {"lm loss": 1.0}
        return capsys.readouterr().out

    return evaluate


def test_one_line_says_it_all(layer, evaluate):
    x = hidden_states(8, 3)
    active, without = naive_means(layer, x, torch.ones(8, 3))
    tflops = 6 * active / 0.5
    line = evaluate([layer], lambda model: model[0](x))
    assert line == (
        f" evaluated 48 tokens | tokens-per-second: 96.0 | mfu: {tflops / 100:.4f} |"
        f" throughput per GPU (TFLOP/s/GPU): {tflops:.4g} | active-experts: {active:.3f} |"
        f" tokens-without-expert: {without:.4f} |\n"
    )


def test_each_evaluation_starts_anew(layer, evaluate):
    x = hidden_states(8, 3)
    first = evaluate([layer], lambda model: model[0](x))
    assert evaluate([layer], lambda model: model[0](x)) == first


def test_an_evaluation_that_fails_says_nothing_and_leaves_no_hook(layer, evaluate):
    with pytest.raises(ZeroDivisionError):
        evaluate([layer], lambda model: 1 / 0)
    assert not layer.router._forward_hooks


def test_a_dense_model_has_the_line_without_routing(single_rank, evaluate):
    line = evaluate([torch.nn.Linear(2, 2)], lambda model: None)
    assert line.startswith(" evaluated 48 tokens | tokens-per-second: 96.0 | mfu: ")
    assert "expert" not in line
