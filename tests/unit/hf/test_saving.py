"""Weights on disk: names, shards, lambda to the bit, dtypes, device maps, and code beside them."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM

import remoe.hf as hf
from hf_models import VARIANTS, tiny_config, tiny_model, tokens
from remoe.hf.export import CODE_FILES

ROUNDING = {"rtol": 1e-5, "atol": 1e-5}
LAMBDA = 1.2345678e-07  # neither bf16 nor fp16 has it


def model_with_lambda(**settings):
    model = tiny_model(**settings)
    for layer in model.model.layers:
        if layer.has_experts:
            layer.mlp.router.reg_coeff.fill_(LAMBDA)
    return model


def lambdas(model):
    return [value for name, value in model.named_buffers() if name.endswith("reg_coeff")]


def has_exact_lambda(model):
    wanted = torch.tensor(LAMBDA)
    return all(v.dtype == torch.float32 and torch.equal(v, wanted) for v in lambdas(model))


def names_of_layer(i, has_experts, extra=()):
    moe = ["router.weight", "router.reg_coeff", "experts.gate_up_proj", "experts.down_proj"]
    dense = ["gate_proj.weight", "up_proj.weight", "down_proj.weight"]
    names = ["input_layernorm.weight", "post_attention_layernorm.weight", *extra]
    names += [f"self_attn.{p}_proj.weight" for p in "qkvo"]
    names += [f"mlp.{name}" for name in (moe if has_experts else dense)]
    return {f"model.layers.{i}.{name}" for name in names}


def test_names_of_the_tensors_are_the_documented_ones(tmp_path):
    tiny_model(moe_layers=[0, 1], qk_norm="head").save_pretrained(tmp_path)
    norms = ["self_attn.q_norm.weight", "self_attn.k_norm.weight"]
    wanted = {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"}
    wanted |= names_of_layer(0, False, norms) | names_of_layer(1, True, norms)
    state = load_file(tmp_path / "model.safetensors")
    assert set(state) == wanted
    assert state["model.layers.1.mlp.experts.gate_up_proj"].shape == (4, 32, 32)
    assert state["model.layers.1.mlp.router.reg_coeff"].shape == ()


@pytest.mark.parametrize("variant", VARIANTS)
def test_model_that_is_saved_in_shards_loads_with_equal_logits_and_lambda(variant, tmp_path):
    model, x = model_with_lambda(**VARIANTS[variant]), tokens()
    model.save_pretrained(tmp_path, max_shard_size="8KB")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 2
    assert ("lm_head.weight" in index["weight_map"]) is not model.config.tie_word_embeddings
    loaded, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    state = model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in loaded.state_dict().items())
    # A file's tensors lie at other addresses, for which torch may choose another kernel.
    torch.testing.assert_close(loaded(x).logits, model(x).logits, **ROUNDING)
    assert has_exact_lambda(loaded)
    decoder = AutoModel.from_pretrained(tmp_path)
    assert type(decoder) is hf.ReMoEModel and has_exact_lambda(decoder)
    torch.testing.assert_close(
        decoder(x).last_hidden_state, model.model(x).last_hidden_state, **ROUNDING
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lambda_is_kept_to_the_bit_through_casts_files_and_loads(dtype, tmp_path):
    model = model_with_lambda()
    assert has_exact_lambda(model.to(dtype)) and has_exact_lambda(model.float())
    model.to(dtype).save_pretrained(tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        stored = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    assert {d for name, d in stored.items() if name.endswith("reg_coeff")} == {"F32"}
    assert {d for name, d in stored.items() if not name.endswith("reg_coeff")} != {"F32"}
    for options in ({}, {"dtype": dtype}, {"dtype": "auto"}, {"device_map": "cpu"}):
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path, **options)
        assert has_exact_lambda(loaded)
    assert loaded.dtype == dtype  # the file's
    assert has_exact_lambda(loaded.half()) and has_exact_lambda(loaded.bfloat16())


def test_lambda_of_a_new_model_in_low_precision_is_exact():
    model = AutoModelForCausalLM.from_config(
        tiny_config(reg_coeff_init=LAMBDA), dtype=torch.bfloat16
    )
    assert model.dtype == torch.bfloat16 and has_exact_lambda(model)


def test_missing_lambda_is_reported_and_starts_anew(tmp_path):
    model = model_with_lambda()
    model.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state["model.layers.1.mlp.router.reg_coeff"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert report["missing_keys"] == {"model.layers.1.mlp.router.reg_coeff"}
    assert [v.item() for v in lambdas(loaded)] == pytest.approx([LAMBDA, 1e-8])


@pytest.mark.parametrize("device_map", ["auto", "cpu", {"": "cpu"}])
def test_device_maps_place_the_model(device_map, tmp_path):
    model, x = model_with_lambda(), tokens()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, device_map=device_map)
    logits = loaded(x.to(loaded.device)).logits.cpu()
    torch.testing.assert_close(logits, model(x).logits, rtol=1e-4, atol=1e-4)
    assert has_exact_lambda(loaded.cpu())


def test_layers_that_are_offloaded_to_disk_compute_the_same(tmp_path):
    model, x = model_with_lambda(), tokens()
    model.save_pretrained(tmp_path / "model")
    device_map = {"model.embed_tokens": "cpu", "model.norm": "cpu", "lm_head": "cpu"}
    device_map |= {"model.layers.0": "cpu", "model.layers.1": "disk"}
    loaded = AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", device_map=device_map, offload_folder=tmp_path / "offload"
    )
    torch.testing.assert_close(loaded(x).logits, model(x).logits, **ROUNDING)


ISOLATED = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("megatron", "remoe"):
            raise ImportError(f"{name} is not there")
sys.meta_path.insert(0, Refuse())
import torch
from transformers import AutoModelForCausalLM
folder, again = sys.argv[1:]
try:
    AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)
except ValueError as error:
    assert "trust_remote_code" in str(error)
else:
    raise AssertionError("foreign code ran without leave")
model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)
x = torch.arange(1, 9)[None]
torch.save((model(x).logits, model.generate(x, max_new_tokens=4, do_sample=False)), folder + "/out")
model.train()
model(x, labels=x).loss.backward()
callback = model.trainer_callback()
callback.on_step_end(None, None, None, model=model)
assert 0 < callback.sparsity < 1
model.save_pretrained(again)
AutoModelForCausalLM.from_pretrained(again, trust_remote_code=True)
assert not {name for name in sys.modules if name.split(".")[0] in ("megatron", "remoe")}
"""


def test_folder_loads_generates_trains_and_saves_without_this_package(tmp_path):
    model, x = model_with_lambda(), torch.arange(1, 9)[None]
    folder, again = tmp_path / "one-v1.0", tmp_path / "two"
    model.save_pretrained(folder)
    environment = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-I", "-c", ISOLATED, str(folder), str(again)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr
    logits, text = torch.load(folder / "out")
    torch.testing.assert_close(logits, model(x).logits, **ROUNDING)
    assert torch.equal(text, model.generate(x, max_new_tokens=4, do_sample=False))
    for name in CODE_FILES:
        assert (again / name).read_bytes() == (folder / name).read_bytes()
    assert json.loads((again / "config.json").read_text())["auto_map"] == hf.export.AUTO_MAP


def test_every_source_file_is_exported():
    folder = hf.export.Path(hf.__file__).parent
    of_this_package = {"__init__.py", "foreign_code.py", "loading.py"}
    assert {path.name for path in folder.glob("*.py")} == {*CODE_FILES, *of_this_package}


def test_export_code_completes_a_folder_that_another_tool_wrote(tmp_path):
    model = tiny_model()
    model.config.save_pretrained(tmp_path)
    save_file(model.state_dict(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "README.md").write_text("mine")
    hf.export_code(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["ReMoEForCausalLM"] and len(config["auto_map"]) == 3
    assert (tmp_path / "README.md").read_text() == "mine"
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded(tokens()).logits, model(tokens()).logits, **ROUNDING)


def test_export_code_refuses_other_folders(tmp_path):
    with pytest.raises(
        ValueError, match=r"no config.json in .*: save the configuration there first"
    ):
        hf.export_code(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match="is of a 'llama' model, not of 'remoe'"):
        hf.export_code(tmp_path)


def test_model_card_says_the_sizes(tmp_path):
    tiny_model(moe_layers=[0, 1], num_experts=8).save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "8 experts, 1 active on average" in card and "| layers (with experts) | 2 (1) |" in card
    assert "| target sparsity, 1 - k/E | 0.875 |" in card and "{" not in card.split("```")[0]
