"""What hooks on routers note."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from evaluation.errors import EvaluationError
from evaluation.models import HUGGING_FACE, MEGATRON, LoadedModel
from routing_analysis import watching
from routing_analysis.calibration import Calibration
from routing_analysis.watching import gates_and_map, watch
from tiny_models import make_llama, make_mixtral, make_remoe

ABOUT = {"run": "a", "step": 3, "method": "relu", "topk": 1}


def calibration(num=5, length=7, largest=300):
    generator = np.random.default_rng(0)
    ids = generator.integers(0, largest, (num, length)).astype(np.int32)
    return Calibration(ids, np.zeros(num, np.int32), ["code"], "here")


@pytest.mark.parametrize(
    ("output", "gates", "active"),
    [
        (
            (torch.zeros(1), torch.tensor([[0.5, 0, 2]]), torch.tensor([[True, False, True]])),
            [[0.5, 0, 2]],
            [[1, 0, 1]],
        ),
        ((torch.tensor([[0.7, 0.2]]), torch.tensor([[2, 0]])), [[0.2, 0, 0.7]], [[1, 0, 1]]),
        ((torch.tensor([[0.1, 0.2, 0.7]]), torch.tensor([[2]])), [[0, 0, 0.7]], [[0, 0, 1]]),
        (
            (torch.tensor([[[0.5, 1.0, 0]]]), torch.tensor([[[False, True, False]]])),
            [[0, 1, 0]],
            [[0, 1, 0]],
        ),
    ],
    ids=["gates and map", "weights and indices", "scores and indices", "batches"],
)
def test_every_form_of_routing(output, gates, active):
    found_gates, found_map = gates_and_map(output, 3)
    assert found_gates.numpy() == pytest.approx(np.array(gates))
    assert found_map.int().tolist() == active


@torch.no_grad()
@pytest.mark.parametrize("at_once", [7, 14, 4096])
def test_maps_are_those_of_the_models_own_logits(at_once, monkeypatch):
    monkeypatch.setattr(watching, "TOKENS_AT_ONCE", at_once)
    model, text = make_remoe(), calibration()
    maps = watch(LoadedModel(model, None, HUGGING_FACE), text, ABOUT)
    ids = torch.from_numpy(text.token_ids).long()
    output = model(ids, output_router_logits=True)
    expected = torch.stack(output.router_logits)
    assert np.array_equal(maps.routing_map(), (expected > 0).numpy())
    assert maps.gates == pytest.approx(expected.relu().numpy(), abs=2e-3)
    losses = F.cross_entropy(
        output.logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
    )
    assert maps.losses[:, :-1].ravel() == pytest.approx(losses.numpy(), rel=1e-4)
    assert np.isnan(maps.losses[:, -1]).all()
    assert maps.meta["moe_layers"] == [1, 2]
    assert (maps.step, maps.num_experts, maps.meta["vocab_size"]) == (3, 4, 300)
    assert not any(router._forward_hooks for router in model.modules())


def test_a_topk_model_has_its_k():
    maps = watch(LoadedModel(make_mixtral(), None, HUGGING_FACE), calibration(), ABOUT)
    assert (maps.routing_map().sum(-1) == 2).all()
    assert ((maps.gates > 0) == maps.routing_map()).all()


class Router(nn.Module):
    """Sends a token id to the expert of its last digit in base four."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, 2))

    def forward(self, ids):
        routing_map = F.one_hot(ids % 4, 4).bool()
        return routing_map * 0.5, routing_map


class SequenceFirst(nn.Module):
    """A model of one layer whose router sees ``[s * b]``, as Megatron's do."""

    device = "cpu"
    config = SimpleNamespace(vocab_size=300, max_position_embeddings=64)

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(
            [nn.ModuleDict({"router": Router(), "experts": nn.Linear(4, 4)})]
        )

    def forward(self, ids):
        self.layers[0]["router"](ids.T.flatten())
        return SimpleNamespace(logits=torch.zeros(*ids.shape, 300))


def test_megatrons_order_of_tokens_becomes_that_of_the_text():
    text = calibration()
    maps = watch(LoadedModel(SequenceFirst(), None, MEGATRON), text, ABOUT)
    expected = np.eye(4, dtype=bool)[text.token_ids.ravel() % 4]
    assert np.array_equal(maps.routing_map()[0], expected)
    assert np.array_equal(maps.gates[0], expected * 0.5)
    assert maps.losses[:, :-1] == pytest.approx(np.log(300))


def test_large_gates_are_left_out(monkeypatch):
    monkeypatch.setattr(watching, "MOST_GATES", 100)
    maps = watch(LoadedModel(make_remoe(), None, HUGGING_FACE), calibration(), ABOUT)
    assert maps.gates is None


@pytest.mark.parametrize(
    ("make", "text", "message"),
    [
        (make_llama, calibration(), "the model is dense"),
        (make_remoe, calibration(largest=900), r"has token id 8\d\d, and the model 300 tokens"),
        (make_remoe, calibration(length=65), "--sequence-length 65: the model was trained on 64"),
    ],
    ids=["dense", "another tokenizer", "long"],
)
def test_what_cannot_be_watched_is_refused(make, text, message):
    with pytest.raises(EvaluationError, match=message) as error:
        watch(LoadedModel(make(), None, HUGGING_FACE), text, ABOUT)
    assert "\n" not in str(error.value)
