"""The configuration: what it fills in, keeps, and refuses by one line."""

import pytest
from transformers import AutoConfig

from hf_models import tiny_config
from remoe.hf import ReMoEConfig


def test_default_is_the_papers_smallest_model():
    config = ReMoEConfig()
    sizes = (config.num_hidden_layers, config.hidden_size, config.moe_intermediate_size)
    assert sizes == (12, 768, 3072)
    assert config.head_dim == 64 and config.num_experts_per_tok == 1
    assert all(config.has_experts(layer) for layer in range(12))
    assert config.router_threshold(3) == 0.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vocab_size": 0}, "vocab_size must be a positive integer, got 0"),
        ({"num_hidden_layers": 1.5}, "num_hidden_layers must be a positive integer, got 1.5"),
        ({"num_key_value_heads": 3}, "num_attention_heads=4 must be a multiple of num_key_value"),
        ({"hidden_size": 30}, "hidden_size=30 is no multiple of num_attention_heads=4: give"),
        ({"head_dim": 7}, "head_dim must be even for rotary positions, got 7"),
        ({"qk_norm": "heads"}, r"qk_norm must be one of \(None, 'head', 'full'\), got 'heads'"),
        ({"rope_parameters": {"rope_type": "dynamic"}}, "rope_type='dynamic' changes with"),
        ({"num_experts_per_tok": 5}, "between 1 and num_experts=4, got 5"),
        ({"num_experts_per_tok": 0}, "between 1 and num_experts=4, got 0"),
        ({"router_dtype": "bfloat16"}, "router_dtype must be one of .*, got 'bfloat16'"),
        ({"reg_coeff_init": 0.0}, "reg_coeff_init must be above 0, got 0.0"),
        ({"reg_coeff_multiplier": 1.0}, "reg_coeff_multiplier must be above 1, got 1.0"),
        ({"shared_expert_gate": True}, "shared_expert_gate=True needs shared_expert_intermediate"),
        (
            {"moe_layers": [1]},
            "moe_layers must hold one value a layer: 1 values for num_hidden_lay",
        ),
        ({"moe_layers": [1, 2]}, r"moe_layers must hold 0 or 1 a layer, got \[1, 2\]"),
        ({"moe_layers": [0, 1], "intermediate_size": None}, "give intermediate_size"),
        ({"router_thresholds": [0.1]}, "router_thresholds must hold one value a layer: 1 values"),
        ({"router_thresholds": [0.1, float("nan")]}, "router_thresholds must be finite, got"),
        ({"moe_intermediate_size": 0}, "moe_intermediate_size must be a positive integer, got 0"),
        ({"shared_expert_intermediate_size": 0}, "shared_expert_intermediate_size must be a posit"),
        ({"hidden_act": "swish2"}, "hidden_act='swish2' is none of transformers' activations"),
    ],
)
def test_bad_value_is_refused_by_one_line(settings, message):
    with pytest.raises(ValueError, match=message) as error:
        tiny_config(**settings)
    assert "\n" not in str(error.value)


def test_saved_and_loaded_configuration_is_equal(tmp_path):
    config = tiny_config(
        moe_layers=[True, False],
        router_thresholds=[0.25, 0.0],
        reached_target=True,
        eos_token_id=[3, 5],
        bos_token_id=2,
        tie_word_embeddings=True,
    )
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert type(loaded) is ReMoEConfig
    folder = {"_name_or_path": config._name_or_path}  # where it was loaded from
    assert loaded.to_dict() | folder == config.to_dict()
    assert loaded.moe_layers == [1, 0] and loaded.eos_token_id == [3, 5]
    assert loaded.tie_word_embeddings and loaded.pad_token_id == 0


def test_missing_key_value_heads_are_the_query_heads():
    assert tiny_config(num_key_value_heads=None).num_key_value_heads == 4
