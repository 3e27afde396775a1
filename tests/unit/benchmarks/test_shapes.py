"""What the speed benchmarks compare is of one size and routed as they say."""

import importlib
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from data_tools import REPOSITORY

TINY = {"layers": 2, "hidden": 32, "ffn": 48, "vocabulary": 128, "length": 16, "sequences": 4}


@pytest.fixture(scope="module", autouse=True)
def benchmarks_folder():
    """The benchmarks import from beside themselves."""
    sys.path.insert(0, str(REPOSITORY / "benchmarks"))
    yield
    sys.path.remove(str(REPOSITORY / "benchmarks"))


def module(name):
    return importlib.import_module(name)


def tiny(**changes):
    return module("shapes").Shape(**{**TINY, **changes})


@pytest.mark.parametrize("topk, experts", [(1, 8), (2, 8), (1, 128), (4, 4)])
def test_random_tokens_have_k_active_experts_in_the_mean_and_none_to_several_each(topk, experts):
    tokens, weight = module("routed_tokens").routed_tokens(1024, 32, experts, topk)
    active = (tokens @ weight.T > 0).sum(1)
    assert active.sum() == 1024 * topk if topk < experts else active.float().mean() > 1
    assert active.min() == 0 or topk > 1
    assert active.max() > topk or topk == experts
    chosen = (tokens @ weight.T).argmax(1)
    assert torch.equal(chosen, (tokens[:, 1:] @ weight[:, 1:].T).argmax(1))


def test_layers_of_all_kinds_are_of_one_size_and_remoe_is_at_its_sparsity(single_rank):
    layers, shape = module("megatron_layers"), tiny()
    tokens, weight = module("routed_tokens").routed_tokens(shape.tokens, 32, 8, 1)
    hidden_states = tokens.view(shape.length, shape.sequences, -1)
    active = {}
    for kind in layers.KINDS:
        layer = layers.make_layer(kind, shape, weight)
        assert sum(p.numel() for p in layer.parameters()) == shape.num_layer_parameters()
        active[kind] = layers.active_experts(layer, hidden_states)
        module("layer_side").step(layer, hidden_states)
        assert all(p.grad is not None for p in layer.parameters())
    assert active["ReMoE"].sum() == shape.tokens
    assert 0 in active["ReMoE"] and active["ReMoE"].max() > 1
    assert all((active[kind] == 1).all() for kind in ("TopK", "local TopK"))


def test_grouped_experts_are_timed_against_sequential_ones(single_rank):
    make = module("megatron_layers").make_layer
    names = [
        type(make(kind, tiny(), torch.zeros(8, 32)).experts).__name__
        for kind in ("ReMoE", "TopK", "local TopK")
    ]
    assert names == ["TorchGroupedMLP", "TorchGroupedMLP", "SequentialMLP"]


@pytest.mark.parametrize("kind", ["Mixtral", "Olmoe"])
def test_the_blocks_of_transformers_are_of_the_same_size(kind):
    pytest.importorskip("transformers")
    side, shape = module("layer_side"), tiny(topk=2)
    block = side.make_block(kind, shape, torch.zeros(8, 32))
    assert sum(p.numel() for p in block.parameters()) == shape.num_layer_parameters()
    tokens = torch.randn(shape.length, shape.sequences, 32)
    chosen = module("hugging_face_experts").choose_experts(
        block.experts.config, shape.tokens, lambda: side.median_step(block, tokens, repeats=1)
    )
    assert chosen in ("grouped_mm", "eager", "batched_mm")


@pytest.mark.parametrize("kind", ["Mixtral", "Llama"])
@pytest.mark.parametrize("groups", [4, 2])
def test_the_models_of_transformers_have_the_parameters_that_the_shape_counts(kind, groups):
    transformers = pytest.importorskip("transformers")
    shape = tiny(groups=groups)
    experts = shape.hugging_face_experts() if kind == "Mixtral" else {}
    config = getattr(transformers, f"{kind}Config")(**shape.hugging_face(), **experts)
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    found = sum(p.numel() for p in model.parameters())
    assert found == shape.num_parameters(dense=kind == "Llama")


def test_a_machine_without_a_gpu_times_the_layers_for_it(monkeypatch):
    benchmark, timed = module("moe_layer"), []
    monkeypatch.setattr(benchmark, "measure", lambda shape, args: timed.append(shape))
    monkeypatch.setattr(sys, "argv", ["moe_layer.py"])
    for there, expected in ((False, benchmark.LAYERS), (True, benchmark.GPU_LAYERS)):
        monkeypatch.setattr(benchmark, "has_gpu", lambda there=there: there)
        timed.clear()
        benchmark.main()
        assert timed == list(expected)


def test_batched_experts_are_not_tried_where_their_copies_do_not_fit():
    fits, config = module("hugging_face_experts").fits, tiny().hugging_face()
    config = type("Config", (), {**config, "num_experts_per_tok": 1})
    assert fits("batched_mm", config, 1024) and not fits("batched_mm", config, 2**24)
    assert fits("grouped_mm", config, 2**24)


def test_parameters_and_flops_of_the_paper_s_182m_model():
    shape = module("shapes").SHAPES["182m"]
    assert round(shape.num_parameters() / 1e6) == 777
    assert round(shape.num_parameters(dense=True) / 1e6) == 182
    # Six for each parameter in a product and token (the embedding is none), and attention.
    in_products = shape.num_parameters(dense=True) - 51200 * 768 - 25 * 768
    attention = 12 * 1024 * 768
    assert shape.flops(1, dense=True) == 6 * shape.tokens * (in_products + attention)
    assert shape.flops(2) > shape.flops(1) > shape.flops(1, dense=True)


def test_half_of_the_ids_follow_from_the_one_before(tmp_path):
    corpus = module("random_corpus")
    corpus.write_corpus(tmp_path / "ids", 128, 4001)
    batches = corpus.read_batches(tmp_path / "ids", 4, 100)
    assert batches.shape == (11, 4, 100)  # 9 documents of 500
    assert batches.min() >= 0 and batches.max() < 128
    before, after = batches[:, :, :-1].flatten(), batches[:, :, 1:].flatten()
    shares = [np.bincount(after[before == i]).max() / (before == i).sum() for i in range(8)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.08)


def test_tokens_that_are_no_whole_sequences_are_refused():
    assert tiny().with_tokens(32) == replace(tiny(), sequences=2)
    with pytest.raises(ValueError, match=r"--tokens 33: give a multiple of 16"):
        tiny().with_tokens(33)


def test_the_line_over_experts_has_the_slope_and_the_residual_of_its_points(single_rank):
    fit = module("scaling").fit
    intercept, slope, residual = fit([8, 16, 32], [2.8, 3.6, 5.2])
    assert intercept == pytest.approx(2.0) and slope == pytest.approx(0.1)
    assert residual < 1e-9
    assert fit([1, 2, 3], [1.0, 1.0, 2.0])[2] > 0.1
