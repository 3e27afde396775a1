"""The L1 loss and the controller against `remoe`, checkpointing, accumulation, and `Trainer`."""

import math

import pytest
import torch
from transformers import Trainer, TrainingArguments

import remoe
import remoe.hf as hf
from hf_models import tiny_model, tokens
from remoe.hf.regularization_remoe import routing_loss
from remoe.hf.training_remoe import update_reg_coeff

LAMBDA = 0.01  # large enough to be seen in the loss


def training_model(**settings):
    return tiny_model(reg_coeff_init=LAMBDA, **settings).train()


def routers(model):
    return hf.training_remoe.trained_routers(model)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("load_balancing", [True, False])
def test_loss_counts_and_gradient_are_those_of_remoe(load_balancing, padded):
    torch.manual_seed(0)
    logits = torch.randn(12, 4, requires_grad=True)
    same = logits.detach().clone().requires_grad_()
    padding = (torch.arange(12) < 5) if padded else None
    loss, counts = routing_loss(*remoe.relu_routing(logits), 2, load_balancing, padding)
    kept = same[5:] if padded else same
    probs, routing_map = remoe.relu_routing(kept)
    load = remoe.expert_load(routing_map.sum(0), 2, len(kept)) if load_balancing else None
    wanted = remoe.l1_loss(probs, load)
    torch.testing.assert_close(loss, wanted)
    assert torch.equal(counts, remoe.routing_counts(routing_map)[:-1])
    loss.backward()
    wanted.backward()
    torch.testing.assert_close(logits.grad, same.grad)


def test_all_tokens_padding_give_a_loss_of_zero():
    probs = torch.ones(3, 4)
    loss, counts = routing_loss(probs, probs > 0, 1, True, torch.ones(3, dtype=torch.bool))
    assert loss == 0 and counts.tolist() == [0, 0, 0, 0, 0]


@pytest.mark.parametrize("measured", [0.0, 0.5, 0.75, math.nextafter(0.75, 1), 1.0, math.nan])
@pytest.mark.parametrize("start", [1e-30, 1e-8, 1e10])
def test_controller_moves_lambda_as_remoe_does(start, measured):
    coeff, sparsity = torch.tensor(start), torch.tensor(measured, dtype=torch.float64)
    got = update_reg_coeff(coeff, sparsity, 0.75, 1.2)
    assert torch.equal(got, remoe.update_reg_coeff(coeff, sparsity, 0.75, 1.2))


def test_loss_is_the_language_models_plus_lambda_times_l1_of_each_layer():
    model, x = training_model(moe_layers=[1, 1]), tokens()
    mask = torch.ones_like(x)
    mask[0, :3] = 0
    output = model(x, attention_mask=mask, labels=x, output_router_logits=True)
    wanted = 0.0
    for logits in output.router_logits:
        probs, routing_map = remoe.relu_routing(logits[mask.flatten() > 0])
        load = remoe.expert_load(routing_map.sum(dim=0), 1, mask.sum())
        wanted = wanted + LAMBDA * remoe.l1_loss(probs, load)
    torch.testing.assert_close(output.aux_loss, wanted)
    alone = model.eval()(x, attention_mask=mask, labels=x)
    torch.testing.assert_close(output.loss, alone.loss + wanted)
    assert alone.aux_loss is None


@pytest.mark.parametrize("why", ["evaluation", "no gradients", "frozen router"])
def test_nothing_is_penalised_or_counted_without_training(why):
    model, x = training_model(), tokens()
    frozen = routers(model)
    if why == "evaluation":
        model.eval()
    if why == "frozen router":
        for router in frozen:
            router.weight.requires_grad_(False)
    with torch.set_grad_enabled(why != "no gradients"):
        output = model(x, labels=x)
    assert output.aux_loss is None
    assert all(router.counts is None for router in frozen)


def test_controllers_step_sums_micro_batches_and_layers_before_it_divides():
    model = training_model()
    first, second = tokens(2, 9), tokens(1, 5, seed=4)
    counts = torch.zeros(2, dtype=torch.int64)
    for x in (first, second):
        for logits in model(x, labels=x, output_router_logits=True).router_logits:
            counts += torch.tensor([(logits > 0).sum(), logits.numel()])
    wanted = remoe.sparsity(*counts)
    sparsity = hf.step_controller(model)
    assert torch.equal(sparsity, wanted)
    moved = remoe.update_reg_coeff(torch.tensor(LAMBDA), wanted, 0.75, 1.2)
    assert all(torch.equal(r.reg_coeff, moved) and r.counts is None for r in routers(model))


def test_skipped_step_leaves_lambda_and_empties_the_counters():
    model, x = training_model(), tokens()
    model(x)
    assert hf.step_controller(model, was_taken=False) is not None
    assert all(r.reg_coeff == torch.tensor(LAMBDA) and r.counts is None for r in routers(model))


def test_step_without_a_forward_is_refused():
    with pytest.raises(
        ValueError, match="the model counted nothing since the last step: run it in"
    ):
        hf.step_controller(training_model())
    assert hf.step_controller(training_model(moe_layers=[0, 0])) is None


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointing_gives_the_same_gradients_and_counts_once(use_reentrant):
    x, results = tokens(), []
    for checkpoints in (False, True):
        model = training_model(attention_bias=True)
        if checkpoints:
            model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
            if use_reentrant:
                model.enable_input_require_grads()
        loss = model(x, labels=x).loss
        loss.backward()
        counts = [router.counts for router in routers(model)]
        results.append((loss, counts, {n: p.grad for n, p in model.named_parameters()}))
    (loss, counts, gradients), (loss_2, counts_2, gradients_2) = results
    assert torch.equal(loss, loss_2)
    assert all(map(torch.equal, counts, counts_2)) and counts[0][-1] == x.numel()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, gradients_2[name], rtol=0, atol=0)


def test_accumulated_micro_batches_give_the_mean_of_their_losses():
    model = training_model()
    micro_batches = tokens(4, 9).chunk(2)
    items = sum(x[:, 1:].numel() for x in micro_batches)
    parts = [model(x, labels=x, num_items_in_batch=items).loss for x in micro_batches]
    wanted = [model(x, labels=x).loss for x in micro_batches]
    torch.testing.assert_close(sum(parts), torch.stack(wanted).mean())


def samples(count, length=12):
    return [{"input_ids": x, "labels": x} for x in tokens(count, length, seed=9)]


def arguments(folder, **settings):
    defaults = {
        "max_steps": 4,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_steps": 2,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 1,
    }
    return TrainingArguments(output_dir=str(folder), **(defaults | settings))


@pytest.mark.parametrize(
    "settings",
    [{}, {"bf16": True}, {"gradient_checkpointing": True}],
    ids=["fp32", "bf16 autocast", "checkpointing"],
)
def test_trainer_moves_lambda_once_a_step_and_logs_it(settings, tmp_path):
    model = training_model()
    trainer = Trainer(
        model, arguments(tmp_path, **settings), train_dataset=samples(16),
        callbacks=[hf.ReMoECallback()],
    )  # fmt: skip
    trainer.train()
    log = [entry for entry in trainer.state.log_history if "moe_relu_sparsity" in entry]
    assert len(log) == 4
    coeff = torch.tensor(LAMBDA)
    for entry in log:  # about half of the gates are on: denser than 1 - 1/4 for four steps
        assert 0.3 < entry["moe_relu_sparsity"] < 0.75
        coeff = coeff * 1.2
        assert entry["moe_relu_l1_reg_coeff"] == coeff.item()
    assert all(torch.equal(router.reg_coeff, coeff) for router in routers(model))
    assert trainer.evaluate(samples(4))["eval_loss"] > 0
    assert all(router.counts is None for router in routers(model))


def test_trainer_resumes_with_the_same_lambda_and_weights(tmp_path):
    def run(folder, **settings):
        model = training_model()
        trainer = Trainer(
            model,
            arguments(folder),
            train_dataset=samples(16),
            callbacks=[model.trainer_callback()],
        )
        trainer.train(**settings)
        return model.state_dict()

    whole = run(tmp_path)
    resumed = run(tmp_path, resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert all(torch.equal(whole[name], value) for name, value in resumed.items())


def test_trainer_brings_sparsity_to_its_target(tmp_path):
    model = tiny_model(reg_coeff_init=1e-3, reg_coeff_multiplier=1.3).train()
    trainer = Trainer(
        model,
        arguments(tmp_path, max_steps=60, learning_rate=1e-2, save_steps=1000),
        train_dataset=samples(32),
        callbacks=[hf.ReMoECallback()],
    )
    trainer.train()
    figures = [e["moe_relu_sparsity"] for e in trainer.state.log_history if "loss" in e]
    assert figures[0] < 0.65
    assert sum(figures[-20:]) / 20 == pytest.approx(0.75, abs=0.08)


def test_untrained_lambda_stays_without_the_callback(tmp_path):
    model = training_model()
    Trainer(model, arguments(tmp_path, max_steps=1), train_dataset=samples(8)).train()
    assert all(router.reg_coeff == torch.tensor(LAMBDA) for router in routers(model))
