"""Damaged and foreign folders are refused in one line; what is written appears whole or not at all."""

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, PreTrainedTokenizerBase

COMMANDS = {
    "llama": ("from_dense", "--num-experts", 4, "--topk", 1, "--tune-steps", 1),
    "mixtral": ("from_topk", "--tune-steps", 1),
    "remoe": ("set_active_experts", "--active-experts", 1),
}


@pytest.fixture(params=COMMANDS)
def kind(request):
    return request.param


@pytest.fixture
def folder(models, kind, tmp_path):
    return shutil.copytree(models / kind, tmp_path / "source")


@pytest.fixture
def refusal(call, kind, folder, tmp_path):
    """What a command says of the folder, having written nothing."""

    def run(status=1):
        name, *words = COMMANDS[kind]
        found, said = call(name, folder, *words)
        assert found == status and len(said.splitlines()) == 1, said
        assert [path.name for path in tmp_path.iterdir()] == ["source"]
        return said

    return run


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_foreign_code_is_refused_and_not_run(refusal, folder, tmp_path_factory, file):
    marker = tmp_path_factory.mktemp("marker") / "ran"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w')\n")
    config = json.loads((folder / file).read_text())
    config["auto_map"] = {"AutoConfig": "evil.Evil", "AutoTokenizer": ["evil.Evil", None]}
    (folder / file).write_text(json.dumps(config))
    assert "asks to run foreign code (auto_map AutoConfig: evil.Evil): refused" in refusal()
    assert not marker.exists()


def test_a_tensor_that_is_missing_is_not_made_up(refusal, folder):
    name = "model.layers.1.self_attn.q_proj.weight"
    change_weights(folder, lambda weights: weights.pop(name))
    assert f"1 weights are missing or of another shape, {name} first" in refusal()


def test_weights_that_are_no_numbers_are_refused(refusal, folder):
    change_weights(folder, lambda weights: weights["model.norm.weight"].fill_(float("nan")))
    assert "model on the text is nan" in refusal()


def test_a_tokenizer_that_is_too_large_is_refused(refusal, folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<more>"])
    tokenizer.save_pretrained(folder)
    assert "the tokenizer has 301 tokens, the model 300" in refusal()


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [(OSError(28, "No space left"), 1, "No space left"), (KeyboardInterrupt(), 130, "interrupted")],
)
def test_a_write_that_ends_in_the_middle_leaves_nothing(
    folder, kind, call, tmp_path, monkeypatch, error, status, message
):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(PreTrainedTokenizerBase, "save_pretrained", fail)
    monkeypatch.setattr("set_active_experts._write_thresholds", fail)
    name, *words = COMMANDS[kind]
    found, said = call(name, folder, *words)
    assert found == status and message in said.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_copy_inside_the_model_is_refused(models, call):
    output = models / "remoe" / "new"
    words = ("--active-experts", 1, "--output", output)
    status, said = call("set_active_experts", models / "remoe", *words, with_output=False)
    assert status == 1 and "is in the model's folder: name another" in said
    assert not output.exists()
