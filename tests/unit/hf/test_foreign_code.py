"""Code that a folder asks to run is found, whichever file asks; a ReMoE model's own is none."""

import json

import pytest

from remoe.hf import ReMoEConfig, export_code
from remoe.hf.foreign_code import foreign_code

EVIL = "evil.Evil"


@pytest.fixture
def folder(tmp_path):
    ReMoEConfig().save_pretrained(tmp_path)
    export_code(tmp_path)
    return tmp_path


def ask(path, auto_map):
    content = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(content | {"auto_map": auto_map}))


def test_an_exported_model_asks_for_its_own_code_alone(folder):
    assert foreign_code(folder) is None


def test_a_folder_without_any_file_asks_for_nothing(tmp_path):
    assert foreign_code(tmp_path) is None


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize("target", [EVIL, [None, EVIL], "modeling_remoe.Evil", "a/b--evil.Evil"])
def test_other_code_is_named_with_its_file(folder, file, target):
    ask(folder / file, {"AutoModel": target})
    said = foreign_code(folder)
    assert said.startswith(f"{folder / file}: asks to run foreign code (auto_map AutoModel: ")


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_attention_of_the_hub_is_foreign(folder, key):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {key: "evil/kernel:attention"}))
    assert f"asks to run foreign code ({key}: evil/kernel:attention)" in foreign_code(folder)
    (folder / "config.json").write_text(json.dumps(config | {key: "sdpa"}))
    assert foreign_code(folder) is None


def test_own_names_are_foreign_in_another_model(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "llama"}))
    assert "foreign code" in foreign_code(folder)


@pytest.mark.parametrize("content", ["{", "[]", '{"auto_map": 3}', '{"auto_map": "evil.Evil"}'])
def test_a_file_that_cannot_be_read_is_an_error(folder, content):
    (folder / "tokenizer_config.json").write_text(content)
    with pytest.raises(ValueError, match=r"tokenizer_config\.json: cannot be read"):
        foreign_code(folder)
