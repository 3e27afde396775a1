"""The whole model: parity with Llama, outputs, attention implementations, one token, bf16."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from hf_models import VARIANTS, tiny_model, tokens

IDS = list(VARIANTS)


def stock_twin(model, config_class, model_class):
    """The same weights in a model of transformers' own."""
    c = model.config
    names = "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads"
    names += " num_key_value_heads head_dim max_position_embeddings rms_norm_eps pad_token_id"
    names += " attention_bias tie_word_embeddings rope_parameters"
    twin = model_class(config_class(**{name: getattr(c, name) for name in names.split()})).eval()
    missing, unexpected = twin.load_state_dict(model.state_dict(), strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}
    return twin


@pytest.mark.parametrize(
    ("config_class", "model_class", "settings"),
    [
        (LlamaConfig, LlamaForCausalLM, {}),
        (LlamaConfig, LlamaForCausalLM, {"tie_word_embeddings": True}),
        (LlamaConfig, LlamaForCausalLM, VARIANTS["scaled positions"]),
        (Qwen3Config, Qwen3ForCausalLM, {"qk_norm": "head"}),
    ],
    ids=["llama", "tied", "scaled positions", "qwen3"],
)
def test_dense_layers_compute_what_a_stock_model_of_the_same_weights_does(
    config_class, model_class, settings
):
    model = tiny_model(moe_layers=[0, 0], **settings)
    twin, x = stock_twin(model, config_class, model_class), tokens()
    torch.testing.assert_close(model(x).logits, twin(x).logits, rtol=1e-5, atol=1e-5)
    model(x, labels=x).loss.backward()
    twin(x, labels=x).loss.backward()
    gradients = {name: p.grad for name, p in twin.named_parameters()}
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "variant",
    ["plain", "norm over all heads", "bias of q, k and v", "widths that grouped_mm refuses"],
)
def test_one_expert_whose_gate_is_one_is_a_dense_layer(variant):
    settings = VARIANTS[variant] | {"num_experts": 1}
    width = settings.get("moe_intermediate_size", 16)
    model = tiny_model(**settings)
    dense = tiny_model(**(settings | {"moe_layers": [0, 0], "intermediate_size": width}))
    state = dense.state_dict()
    for name, value in model.state_dict().items():
        if name in state:
            state[name] = value
    for layer, of in zip(model.model.layers, ("0", "1"), strict=True):
        layer.mlp.router.forward = lambda x: (x, torch.ones(len(x), 1), torch.ones(len(x), 1) > 0)
        gate, up = layer.mlp.experts.gate_up_proj[0].chunk(2)
        for part, value in (("gate", gate), ("up", up), ("down", layer.mlp.experts.down_proj[0])):
            state[f"model.layers.{of}.mlp.{part}_proj.weight"] = value
    dense.load_state_dict(state)
    x = tokens()
    torch.testing.assert_close(model(x).logits, dense(x).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variant", IDS)
def test_attention_and_experts_implementations_agree(variant):
    model, x = tiny_model(**VARIANTS[variant]), tokens()
    mask = torch.ones_like(x)
    mask[0, :4] = 0
    model.set_attn_implementation("sdpa")
    wanted = model(x, attention_mask=mask).logits[mask > 0]
    model.set_attn_implementation("eager")
    torch.testing.assert_close(
        model(x, attention_mask=mask).logits[mask > 0], wanted, rtol=1e-4, atol=1e-5
    )
    model.set_experts_implementation("loop")
    torch.testing.assert_close(
        model(x, attention_mask=mask).logits[mask > 0], wanted, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("variant", IDS)
def test_logits_of_one_token_are_the_first_ones_of_a_text(variant):
    model, x = tiny_model(**VARIANTS[variant]), tokens()
    alone, whole = model(x[:, :1]).logits, model(x).logits[:, :1]
    torch.testing.assert_close(alone, whole, rtol=1e-5, atol=1e-5)


def test_outputs_that_are_asked_for():
    model = tiny_model(moe_layers=[0, 1])
    model.set_attn_implementation("eager")
    x = tokens()
    output = model(x, output_router_logits=True, output_hidden_states=True, output_attentions=True)
    (logits,) = output.router_logits  # the second layer's
    assert logits.shape == (x.numel(), 4) and logits.dtype == torch.float32
    assert [tuple(h.shape) for h in output.hidden_states] == [(2, 11, 32)] * 3
    assert torch.equal(model.lm_head(output.hidden_states[-1]), output.logits)
    assert [tuple(a.shape) for a in output.attentions] == [(2, 4, 11, 11)] * 2
    torch.testing.assert_close(output.attentions[0].sum(dim=-1), torch.ones(2, 4, 11))
    assert model(x).router_logits is None and model(x).hidden_states is None
    model.config.output_router_logits = True
    assert len(model(x).router_logits) == 1
    assert isinstance(model(x, return_dict=False), tuple)


def test_attentions_of_a_kernel_that_has_none_are_refused():
    model = tiny_model()
    model.set_attn_implementation("sdpa")
    with pytest.raises(ValueError, match='load the model with attn_implementation="eager"'):
        model(tokens(), output_attentions=True)


def test_unknown_experts_implementation_is_refused():
    with pytest.raises(ValueError, match='must be "grouped_mm" or "loop", got \'sonic\''):
        tiny_model().set_experts_implementation("sonic")


def test_ids_or_embeddings_but_one_of_them():
    model, x = tiny_model(), tokens()
    embeddings = model.get_input_embeddings()(x)
    assert torch.equal(model(inputs_embeds=embeddings).logits, model(x).logits)
    for arguments in ({}, {"input_ids": x, "inputs_embeds": embeddings}):
        with pytest.raises(ValueError, match="give input_ids or inputs_embeds: one of them"):
            model(**arguments)


def test_logits_to_keep_are_the_last_ones():
    model, x = tiny_model(), tokens()
    torch.testing.assert_close(model(x, logits_to_keep=2).logits, model(x).logits[:, -2:])
    some = model(x, logits_to_keep=torch.tensor([1, 4])).logits
    torch.testing.assert_close(some, model(x).logits[:, [1, 4]])


@pytest.mark.parametrize("variant", IDS)
def test_bf16_model_runs_forward_and_backward(variant):
    model, x = tiny_model(**VARIANTS[variant]).bfloat16().train(), tokens()
    output = model(x, labels=x)
    output.loss.backward()
    assert output.logits.dtype == torch.bfloat16 and output.loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_new_weights_have_the_configurations_deviation():
    model = tiny_model(initializer_range=0.05, hidden_size=64)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            assert torch.equal(parameter, torch.ones_like(parameter)), name
        else:
            assert 0.04 < parameter.std() < 0.06, name
