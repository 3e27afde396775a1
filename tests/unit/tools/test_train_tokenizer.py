import json
import sys

import pytest
import train_tokenizer

from data_tools import TEXTS, write_jsonl

STRANGE = "Naïve  café\n\n\t漢字 🙂 \u2028 x\x85y don 't , end . \x00\x7f"


def train(*inputs, output, flags=(), vocab_size=300):
    argv = ["--input", *map(str, inputs), "--output", str(output)]
    return train_tokenizer.main([*argv, "--vocab-size", str(vocab_size), *map(str, flags)])


def test_auto_tokenizer_loads_it_and_gives_any_text_back(tokenizer_folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    assert len(tokenizer) == 300
    assert tokenizer.eos_token == tokenizer.bos_token == "<|endoftext|>"
    for text in (*TEXTS, STRANGE):
        ids = tokenizer(text).input_ids
        assert tokenizer.decode(ids) == text
        assert tokenizer.eos_token_id not in ids
    assert len(tokenizer(" cat").input_ids) == 1  # merges were learnt and are used


def test_megatron_loads_it_with_the_same_ids_and_the_eod(tokenizer_folder):
    from argparse import Namespace

    from megatron.core.tokenizers.utils.build_tokenizer import build_tokenizer
    from tokenizers import Tokenizer

    from data.tokenization import megatron_arguments

    options = Namespace(
        tokenizer_type="HuggingFaceTokenizer",
        tokenizer_model=tokenizer_folder,
        vocab_size=None,
        tokenizer_hf_no_include_special_tokens=False,
    )
    tokenizer = build_tokenizer(megatron_arguments(options))
    assert tokenizer.vocab_size == 300
    assert tokenizer.eod == tokenizer.tokenize("<|endoftext|>")[0] == 0
    expected = Tokenizer.from_file(f"{tokenizer_folder}/tokenizer.json").encode(STRANGE).ids
    assert tokenizer.tokenize(STRANGE) == expected
    assert tokenizer.detokenize(expected) == STRANGE


def test_the_same_text_gives_the_same_files(tmp_path):
    corpus = write_jsonl(tmp_path / "a.jsonl", TEXTS * 5)
    folder = tmp_path / "texts"
    folder.mkdir()
    for index, text in enumerate(TEXTS * 5):
        (folder / f"{index:02d}.txt").write_bytes(text.encode())
    assert train(corpus, output=tmp_path / "one") == 0
    assert train(corpus, output=tmp_path / "two") == 0
    assert train(folder, output=tmp_path / "three") == 0
    for name in ("tokenizer.json", "tokenizer_config.json"):
        one = (tmp_path / "one" / name).read_bytes()
        assert one == (tmp_path / "two" / name).read_bytes()
        assert one == (tmp_path / "three" / name).read_bytes()


def test_sample_is_bounded_and_shared_between_the_files(tmp_path):
    from data.sources import find_sources

    short = write_jsonl(tmp_path / "a.jsonl", ["ab"])
    long = [write_jsonl(tmp_path / f"{name}.jsonl", [name * 40, "never"]) for name in ("ü", "x")]
    sources, _ = find_sources([str(short), *map(str, long)])
    sample = train_tokenizer.Sample(sources, ["text"], 53, skip_bad=False)
    # 53 // 3 = 17 bytes of share, 2 used; (53 - 2) // 2 = 25, the last of which is half an ü; 26
    assert list(sample) == ["ab", "ü" * 12, "x" * 26]
    assert sample.num_bytes == 53


def test_a_small_text_gives_a_smaller_vocabulary_and_says_so(tmp_path, capsys):
    corpus = write_jsonl(tmp_path / "a.jsonl", ["ab"])
    assert train(corpus, output=tmp_path / "out", vocab_size=1000) == 0
    assert "the text has merges for 258 entries only" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "flags", "message"),
    [
        ('{"text": "a"}\n', ["--max-bytes", 0], "--max-bytes 0 leaves no text"),
        ('{"text": "a"}\n{\n', [], "a.jsonl:2: broken JSON"),
        ('{"text": ""}\n', [], "no text in any document"),
        ("{\n", ["--skip-bad"], "no text in any document"),
        ('{"body": "a"}\n', [], 'a.jsonl:1: no key "text" (keys here: body); see --json-keys'),
        ("", [], "a.jsonl: the file is empty"),
    ],
)
def test_errors_are_one_line_and_leave_no_output(tmp_path, capsys, content, flags, message):
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    assert train(path, output=tmp_path / "out", flags=flags) == 1
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_outputs_that_are_in_the_way_are_refused(tmp_path, capsys):
    corpus = write_jsonl(tmp_path / "a.jsonl", TEXTS)
    assert train(corpus, output=corpus) == 1
    assert "is a file; name a folder" in capsys.readouterr().err
    assert train(corpus, output=tmp_path / "out") == 0
    assert train(corpus, output=tmp_path / "out") == 1
    assert "pass --overwrite to replace it" in capsys.readouterr().err
    assert train(corpus, output=tmp_path / "out", flags=["--overwrite"], vocab_size=280) == 0
    tokenizer = json.loads((tmp_path / "out" / "tokenizer.json").read_text())
    assert len(tokenizer["model"]["vocab"]) == 280


def test_a_failing_disk_leaves_the_old_tokenizer(tmp_path, capsys, monkeypatch):
    corpus = write_jsonl(tmp_path / "a.jsonl", TEXTS)
    out = tmp_path / "out"
    assert train(corpus, output=out) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    assert train(corpus, output=out, flags=["--overwrite"], vocab_size=280) == 1
    assert "cannot be written: No space left on device" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_vocabulary_without_room_for_the_bytes_is_refused(tmp_path, capsys):
    corpus = write_jsonl(tmp_path / "a.jsonl", TEXTS)
    assert train(corpus, output=tmp_path / "out", vocab_size=256) == 1
    assert "--vocab-size 256 is less than 257" in capsys.readouterr().err
    assert train(corpus, output=tmp_path / "out", vocab_size=257) == 0


def test_it_imports_neither_torch_nor_megatron(tmp_path):
    import subprocess

    check = "import sys, train_tokenizer; print({'torch', 'megatron'} & set(sys.modules))"
    folder = train_tokenizer.__file__.rpartition("/")[0]
    result = subprocess.run(
        [sys.executable, "-c", check], cwd=folder, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"
