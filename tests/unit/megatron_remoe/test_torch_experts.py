"""Torch's grouped experts are Megatron's `SequentialMLP`: function, gradients, weights, checkpoints."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from megatron.core.dist_checkpointing.mapping import apply_factories, apply_factory_merges
from megatron.core.models.backends import LocalSpecProvider
from megatron.core.transformer.moe.experts import SequentialMLP
from megatron.core.transformer.moe.moe_layer import MoELayer
from megatron.core.transformer.moe.moe_utils import get_default_pg_collection
from megatron.training.models.gpt import GPTModelConfig, default_layer_spec

from megatron.remoe.layer_specs import remoe_layer_spec, torch_native_layer_spec
from megatron.remoe.moe_layer import ReMoELayer
from megatron.remoe.torch_native import TorchGroupedMLP
from megatron.remoe.torch_native.experts import choose_gemm
from megatron.remoe.torch_native.grouped_gemm import grouped_mm, loop_of_mm
from moe_layers import assert_parity, by_expert, make_config, written_by

HIDDEN = 32
ROWS = {
    "ragged": [5, 1, 0, 7],  # an expert without rows
    "no rows": [0, 0, 0, 0],
    "all active": [16, 16, 16, 16],
    "one expert": [0, 0, 9, 0],
    "first and last without rows": [0, 3, 4, 0],
}
GEMMS = pytest.mark.parametrize("gemm", [loop_of_mm, grouped_mm], ids=lambda gemm: gemm.__name__)


def both(config, num_experts=4, seed=0):
    """`SequentialMLP` and ours, each built from the same random numbers."""
    build = LocalSpecProvider().grouped_mlp_modules(True)
    assert build.func is SequentialMLP
    built = []
    for make in (build, partial(TorchGroupedMLP, **build.keywords)):
        torch.manual_seed(seed)
        built.append(make(num_experts, config, pg_collection=get_default_pg_collection()))
    return [experts.to(config.params_dtype) for experts in built]


def run(experts, rows, dtype, gates=torch.float32):
    """Output and all gradients, by name."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(sum(rows), HIDDEN, generator=generator).to(dtype).requires_grad_()
    probs = torch.rand(sum(rows), generator=generator).to(gates).requires_grad_()
    direction = torch.randn(sum(rows), HIDDEN, generator=generator).to(dtype)
    output, bias = experts(x, torch.tensor(rows), probs)
    assert bias is None and output.dtype == dtype
    (output * direction).sum().backward()
    results = {"output": output.detach(), "x": x.grad, "probs": probs.grad}
    for index, pair in enumerate(by_expert(experts, lambda weight: weight.grad)):
        results[f"expert {index} fc1"], results[f"expert {index} fc2"] = pair
    return results


@GEMMS
@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize(
    "changes",
    [{}, {"bias_activation_fusion": True}, {"gated_linear_unit": False, "activation_func": F.gelu}],
    ids=["SwiGLU", "fused SwiGLU", "GELU"],
)
def test_output_and_gradients_are_those_of_sequential_mlp(single_rank, changes, rows, gemm):
    sequential, grouped = both(make_config(**changes))
    grouped.gemm = gemm
    assert_parity(*(run(experts, rows, torch.float32) for experts in (grouped, sequential)))


@GEMMS
@pytest.mark.parametrize("gates", [torch.float32, torch.bfloat16], ids=str)
def test_bf16_is_as_good_as_sequential_mlp(single_rank, gates, gemm):
    """Twice its error against fp32, with gates of either dtype."""
    sequential, grouped = both(make_config(dtype=torch.bfloat16))
    grouped.gemm = gemm
    ours, theirs = (run(e, ROWS["ragged"], torch.bfloat16, gates) for e in (grouped, sequential))
    truth_of = both(make_config())[0]
    with torch.no_grad():  # of the weights as they are rounded
        for weight, rounded in zip(truth_of.parameters(), sequential.parameters(), strict=True):
            weight.copy_(rounded)
    for name, truth in run(truth_of, ROWS["ragged"], torch.float32).items():
        allowed = 2 * (theirs[name].float() - truth).norm()
        assert (ours[name].float() - truth).norm() <= allowed, name


@GEMMS
def test_an_expanded_gradient_is_taken(single_rank, gemm):
    """That of a sum has no strides; the kernels of `grouped_mm` want some."""
    _, grouped = both(make_config())
    grouped.gemm = gemm
    output, _ = grouped(torch.randn(6, HIDDEN), torch.tensor([1, 2, 3, 0]), torch.ones(6))
    output.sum().backward()
    assert grouped.weight2.grad[:3].abs().sum() > 0
    assert torch.equal(grouped.weight2.grad[3], torch.zeros_like(grouped.weight2[3]))


def test_the_same_seed_gives_the_same_weights_and_marks(single_rank):
    sequential, grouped = both(make_config())
    pairs = zip(*(by_expert(e, lambda weight: weight) for e in (sequential, grouped)), strict=True)
    for theirs, ours in pairs:
        assert all(torch.equal(a, b) for a, b in zip(theirs, ours, strict=True))
    linears = sequential.local_experts[0].linear_fc1, sequential.local_experts[0].linear_fc2
    for ours, theirs in zip((grouped.weight1, grouped.weight2), linears, strict=True):
        theirs = theirs.weight
        assert ours.tensor_model_parallel and theirs.tensor_model_parallel
        assert ours.partition_dim == theirs.partition_dim + 1, "experts come first"
        assert ours.partition_stride == theirs.partition_stride
        assert ours.allreduce == theirs.allreduce


@pytest.mark.parametrize("offsets", [(), ((0, 1, 3),)], ids=["by layer", "layers stacked"])
@pytest.mark.parametrize("gated", [True, False], ids=["SwiGLU", "GELU"])
def test_a_checkpoint_holds_the_pieces_of_sequential_mlp(single_rank, gated, offsets):
    changes = {} if gated else {"gated_linear_unit": False, "activation_func": F.gelu}
    theirs, ours = (written_by(e, offsets) for e in both(make_config(**changes)))
    assert ours.keys() == theirs.keys() and sum(x is not None for x in ours.values()) >= 8
    for where, tensor in theirs.items():
        assert ours[where] is tensor is None or torch.equal(ours[where], tensor)


def test_what_was_written_loads_again(single_rank):
    _, grouped = both(make_config())
    whole = grouped.sharded_state_dict(metadata={"dp_cp_group": grouped.dp_group})
    built = dict(whole)
    apply_factories(built)
    loaded = {
        name: [piece.data.clone() for piece in value] if isinstance(value, list) else value.data
        for name, value in built.items()
    }
    _, other = both(make_config(), seed=1)
    factories = {name: value for name, value in whole.items() if name in ("weight1", "weight2")}
    other.load_state_dict(apply_factory_merges(loaded, factories))
    assert torch.equal(other.weight1, grouped.weight1)
    assert torch.equal(other.weight2, grouped.weight2)


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"add_bias_linear": True}, "a bias"),
        ({"activation_func_clamp_value": 7.0}, "--activation-func-clamp-value"),
        ({"moe_apply_probs_on_input": True}, "--moe-apply-probs-on-input"),
    ],
)
def test_what_they_do_not_do_is_refused(single_rank, changes, refused):
    with pytest.raises(ValueError, match=refused):
        both(make_config(**changes))


@pytest.mark.parametrize(
    "layer_spec", [torch_native_layer_spec, remoe_layer_spec], ids=["TopK", "ReMoE"]
)
@pytest.mark.parametrize("grouped", [True, False])
def test_the_spec_has_them_where_they_are_asked_for(single_rank, layer_spec, grouped):
    config = GPTModelConfig(
        transformer=make_config(num_layers=2, moe_layer_freq=[0, 1], moe_grouped_gemm=grouped)
    )
    if layer_spec is remoe_layer_spec:
        layer_spec = partial(remoe_layer_spec, base=torch_native_layer_spec)
    dense, moe = layer_spec(config).layer_specs
    mlp = moe.submodules.mlp
    assert mlp.func is (ReMoELayer if isinstance(layer_spec, partial) else MoELayer)
    experts = mlp.keywords["submodules"].experts
    assert experts.func is (TorchGroupedMLP if grouped else SequentialMLP)
    stock = default_layer_spec(config, None).layer_specs[1].submodules.mlp
    assert experts.keywords == stock.keywords["submodules"].experts.keywords
    assert not hasattr(dense.submodules.mlp, "experts")


def test_the_product_is_chosen_by_machine_and_shape(single_rank, monkeypatch):
    config, half = make_config(), make_config(dtype=torch.bfloat16)
    assert choose_gemm(half, 24) is loop_of_mm, "on the CPU"
    monkeypatch.setattr("megatron.remoe.cpu.is_needed", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    assert choose_gemm(half, 24) is loop_of_mm, "torch's own loop would wait for the device"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    assert choose_gemm(half, 24) is grouped_mm
    assert choose_gemm(config, 24) is loop_of_mm, "fp32"
    assert choose_gemm(half, 20) is loop_of_mm, "20 values are no multiple of 16 bytes"
    monkeypatch.delattr(F, "grouped_mm")
    assert choose_gemm(half, 24) is loop_of_mm, "an older torch"
