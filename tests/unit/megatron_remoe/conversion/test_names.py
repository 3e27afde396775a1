"""The dictionary of names: each rule is its own inverse, no tensor is forgotten or named twice."""

from dataclasses import replace

import pytest
import torch

from conversions import DENSE, FAMILIES, topk
from megatron.remoe.conversion.architecture import ConversionError
from megatron.remoe.conversion.families import family_of
from megatron.remoe.conversion.names import PADDING, constants, rules
from megatron.remoe.conversion.tensors import join_qkv, split_qkv


def test_rows_of_a_query_group_stand_together_in_megatron():
    """Two groups of two heads of width 1: queries 0 1, key 2, value 3; queries 4 5, key 6, value 7."""
    queries, keys, values = split_qkv(torch.arange(8.0)[:, None], num_groups=2, head_dim=1)
    assert queries.flatten().tolist() == [0, 1, 4, 5]
    assert keys.flatten().tolist() == [2, 6]
    assert values.flatten().tolist() == [3, 7]


@pytest.mark.parametrize(("heads", "groups"), [(1, 1), (4, 4), (4, 1), (6, 2)])
@pytest.mark.parametrize("rest", [(), (5,)])
def test_joining_undoes_splitting_of_queries_keys_and_values(heads, groups, rest):
    fused = torch.randn((heads + 2 * groups) * 3, *rest)
    parts = split_qkv(fused, groups, head_dim=3)
    assert [len(part) for part in parts] == [heads * 3, groups * 3, groups * 3]
    assert torch.equal(join_qkv(parts, groups, head_dim=3), fused)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_rule_is_its_own_inverse(family):
    for rule in rules(FAMILIES[family]):
        tensor = torch.randn(rule.shape)
        parts = list(rule.split(tensor))
        assert [tuple(part.shape) for part in parts] == list(rule.hf.values())
        if parts:
            assert torch.equal(rule.join(parts), tensor)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_names_are_those_of_transformers_own_model(family, tmp_path):
    """What transformers saves of a model with this config.json: every name and shape."""
    from safetensors import safe_open
    from transformers import AutoConfig, AutoModelForCausalLM

    import remoe.hf  # noqa: F401
    from megatron.remoe.conversion.hf_config import config_of

    model = FAMILIES[family]
    assert family_of(model) == family
    config = config_of(model, "float32", {})
    AutoModelForCausalLM.from_config(
        AutoConfig.for_model(**{k: v for k, v in config.items() if k != "dtype"})
    ).save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        theirs = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    ours = {name: shape for rule in rules(model) for name, shape in rule.hf.items()}
    ours = {name: shape for name, shape in ours.items() if not name.startswith(PADDING)}
    assert ours | constants(model) == theirs


@pytest.mark.parametrize("family", FAMILIES)
def test_no_place_of_megatron_is_named_twice(family):
    places = [rule.place for rule in rules(FAMILIES[family])]
    assert len(places) == len(set(places))


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (replace(DENSE, qkv_bias=True, qk_norm=True), "--add-qkv-bias with --qk-layernorm"),
        (topk(shared_width=4), "--moe-shared-expert-intermediate-size without --moe-shared"),
        (
            replace(topk(shared_width=4, shared_gate=True), qk_norm=True),
            "--qk-layernorm with a shared expert",
        ),
    ],
)
def test_a_model_that_no_stock_architecture_equals_is_refused_with_the_reason(model, reason):
    with pytest.raises(ConversionError, match=reason):
        family_of(model)
