"""Models from folders: whole ones are loaded, all others refused in one line, no foreign code run."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from evaluation.errors import EvaluationError
from evaluation.loading import Loading
from evaluation.models import HUGGING_FACE, find_form, load
from tiny_models import make_llama, make_remoe, save

ALARM = "raise SystemExit('code of the folder was run')\n"


@pytest.fixture
def llama(tokenizer_folder, tmp_path):
    return save(make_llama(), tokenizer_folder, tmp_path / "llama")


@pytest.fixture
def remoe(tokenizer_folder, tmp_path):
    return save(make_remoe(), tokenizer_folder, tmp_path / "remoe")


def refusal(folder, **loading):
    with pytest.raises(EvaluationError) as error:
        load(folder, Loading(device="cpu", **loading))
    assert "\n" not in str(error.value)
    return str(error.value)


def change_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def test_a_whole_folder_is_loaded(llama):
    loaded = load(llama, Loading(device="cpu"))
    assert (loaded.form, loaded.max_length) == (HUGGING_FACE, 64)
    assert not loaded.model.training
    assert torch.equal(loaded.model.lm_head.weight, make_llama().lm_head.weight)


def test_the_dtype_is_the_one_that_was_asked_for(llama):
    assert load(llama, Loading("bfloat16", "cpu")).model.dtype == torch.bfloat16


def test_our_own_type_runs_the_installed_code(remoe):
    for path in remoe.glob("*.py"):
        path.write_text(ALARM)
    change_config(remoe, auto_map={"AutoModelForCausalLM": "modeling_remoe.ReMoEForCausalLM"})
    model = load(remoe, Loading(device="cpu")).model
    assert type(model).__module__ == "remoe.hf.modeling_remoe"


def test_foreign_code_is_not_run_unless_allowed(llama):
    code = (
        "from transformers import LlamaConfig\n\n\n"
        "class MyConfig(LlamaConfig):\n    model_type = 'my'\n"
    )
    model = (
        "from transformers import LlamaForCausalLM\nfrom .my_config import MyConfig\n\n\n"
        "class MyModel(LlamaForCausalLM):\n    config_class = MyConfig\n"
    )
    (llama / "my_config.py").write_text(code)
    (llama / "my_model.py").write_text(ALARM)
    names = {"AutoConfig": "my_config.MyConfig", "AutoModelForCausalLM": "my_model.MyModel"}
    change_config(llama, auto_map=names, model_type="my")
    assert "asks to run foreign code (auto_map AutoConfig: my_config.MyConfig)" in refusal(llama)
    (llama / "my_model.py").write_text(model)
    trusting = Loading(device="cpu", trust_remote_code=True)
    assert type(load(llama, trusting).model).__name__ == "MyModel"


def test_no_folder(tmp_path):
    assert "no such folder" in refusal(tmp_path / "missing")


def test_a_folder_of_neither_form(tmp_path):
    assert "neither a Hugging Face folder" in refusal(tmp_path)


def test_the_form_is_told_by_what_lies_there(llama, tmp_path):
    assert find_form(llama) == "Hugging Face"
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("3")
    assert find_form(tmp_path) == "Megatron"


def test_a_configuration_that_is_no_json(llama):
    (llama / "config.json").write_text("{")
    assert "config.json: cannot be read" in refusal(llama)


def test_no_tokenizer(llama):
    for path in llama.glob("tokenizer*"):
        path.unlink()
    message = refusal(llama)
    assert "no tokenizer can be loaded" in message
    assert message.endswith("give one by --tokenizer")


def test_truncated_weights(llama):
    file = llama / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert f"{llama}: cannot be loaded: " in refusal(llama)


def test_no_weights(llama):
    (llama / "model.safetensors").unlink()
    assert f"{llama}: cannot be loaded: " in refusal(llama)


def test_weights_of_another_shape(llama):
    change_config(llama, intermediate_size=28)
    assert f"{llama}: " in refusal(llama)


def test_weights_that_are_no_numbers(llama):
    weights = load_file(llama / "model.safetensors")
    weights["model.norm.weight"][3] = float("nan")
    save_file(weights, llama / "model.safetensors", metadata={"format": "pt"})
    assert "model.norm.weight holds NaN or infinity" in refusal(llama)


def test_pickled_weights_are_not_read(llama):
    weights = load_file(llama / "model.safetensors")
    (llama / "model.safetensors").unlink()
    torch.save(weights, llama / "pytorch_model.bin")
    assert f"{llama}: cannot be loaded: " in refusal(llama)


def test_weights_that_are_missing(llama):
    change_config(llama, num_hidden_layers=3)
    assert "weights are missing or of another shape, model.layers.2" in refusal(llama)


def test_a_tokenizer_that_is_too_large(tokenizer_folder, tmp_path):
    folder = save(make_llama(vocab_size=200), tokenizer_folder, tmp_path / "small")
    assert "tokens, the model 200; give the one it was trained with" in refusal(folder)


def test_a_device_that_is_not_there(llama):
    with pytest.raises(EvaluationError, match="--device abacus: cannot be used here"):
        load(llama, Loading(device="abacus"))
