"""Megatron -> Hugging Face -> Megatron, for models of every kind from every kind of layout."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import remoe.hf  # noqa: F401  registers ReMoE with transformers
from conversions import FAMILIES, MODELS, same_bits, tensors, words
from megatron.remoe.conversion.hf_config import config_of
from megatron.remoe.conversion.names import constants
from megatron.remoe.conversion.options import Options
from megatron.remoe.conversion.to_hugging_face import to_hugging_face
from megatron.remoe.conversion.to_megatron import to_megatron
from ranks_pretrain import run_pretrain


@pytest.fixture(scope="module", params=MODELS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def folder(name, launcher, single_rank, tmp_path_factory):
    """A checkpoint and what it became: `checkpoints`, `hf`, `back`."""
    folder = tmp_path_factory.mktemp("conversion")
    command = words(name, folder / "checkpoints")
    launcher.ranks(MODELS[name][0]).run(run_pretrain, command, timeout=300)
    return folder


@pytest.fixture(scope="module")
def there(folder):
    return to_hugging_face(options(folder, "checkpoints", "hf"))


@pytest.fixture(scope="module")
def back(folder, there):
    return to_megatron(options(folder, "hf", "back"))


def options(folder: Path, source: str, target: str, **more) -> Options:
    more = {"max_shard_size": 20_000, "quiet": True, **more}
    return Options(input=folder / source, output=folder / target, **more)


def test_the_logits_agree(there, back):
    assert there.difference < 1e-4
    assert back.difference < 1e-4


def test_it_is_the_architecture_that_is_equal(name, folder, there):
    config = json.loads((folder / "hf/config.json").read_text())
    assert config["model_type"] == MODELS[name][2]
    assert config["vocab_size"] == 100


def test_every_weight_and_lambda_come_back_to_the_bit(folder, back):
    before, after = tensors(folder / "checkpoints/iter_0000003"), tensors(folder / "back/release")
    padded = before["embedding.word_embeddings.weight"].shape[0]
    assert padded == 128
    assert same_bits(before, after)


def test_a_model_in_bfloat16_is_as_exact_as_pytorch(folder, there):
    agreement = to_hugging_face(options(folder, "checkpoints", "bf16", dtype=torch.bfloat16))
    assert agreement.difference < 1e-4
    assert agreement.low <= agreement.low_tolerance
    state = AutoModelForCausalLM.from_pretrained(folder / "bf16", dtype="auto").state_dict()
    for key, value in state.items():
        assert value.dtype == (torch.float32 if "reg_coeff" in key else torch.bfloat16)


def save_hugging_face(family, folder):
    """As transformers itself does."""
    torch.manual_seed(1)
    config = config_of(FAMILIES[family], "float32", {})
    config = AutoConfig.for_model(
        **{name: value for name, value in config.items() if name != "dtype"}
    )
    config.initializer_range = 0.3
    model = AutoModelForCausalLM.from_config(config)
    for name in constants(FAMILIES[family]):
        model.get_parameter(name).data.zero_()
    model.save_pretrained(folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_that_transformers_saved_comes_back_to_the_bit(family, single_rank, tmp_path):
    """Of every architecture, with a width of heads of its own; one that never was in Megatron."""
    save_hugging_face(family, tmp_path / "hf")
    assert to_megatron(options(tmp_path, "hf", "there")).difference < 1e-4
    assert to_hugging_face(options(tmp_path, "there", "back")).difference < 1e-4
    before = AutoModelForCausalLM.from_pretrained(tmp_path / "hf").state_dict()
    after = AutoModelForCausalLM.from_pretrained(tmp_path / "back").state_dict()
    assert same_bits(before, after)


@pytest.mark.parametrize("family", ["llama", "remoe"])
def test_names_of_transformer_engine_are_written_and_read(family, single_rank, tmp_path):
    save_hugging_face(family, tmp_path / "hf")
    to_megatron(options(tmp_path, "hf", "te", transformer_impl="transformer_engine"))
    norm = "mlp.linear_fc1.layer_norm_weight" if family == "llama" else "pre_mlp_layernorm.weight"
    assert f"decoder.layers.{norm}" in tensors(tmp_path / "te/release")
    to_hugging_face(options(tmp_path, "te", "back"))
    before = AutoModelForCausalLM.from_pretrained(tmp_path / "hf").state_dict()
    assert same_bits(before, AutoModelForCausalLM.from_pretrained(tmp_path / "back").state_dict())
