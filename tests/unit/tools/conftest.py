"""A tokenizer of a few hundred entries and the tool that uses it."""

import signal

import pytest

from data_tools import TEXTS, Tool, write_jsonl

# A test run started in the background ignores SIGINT, and so would every command it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory):
    import train_tokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    write_jsonl(folder / "train.jsonl", TEXTS * 3)
    argv = ["--input", str(folder / "train.jsonl"), "--vocab-size", "300"]
    assert train_tokenizer.main([*argv, "--output", str(folder / "bpe")]) == 0
    return str(folder / "bpe")


@pytest.fixture
def tool(tokenizer_folder, tmp_path, capsys):
    folder = tmp_path / "output"
    folder.mkdir()
    capsys.readouterr()
    return Tool(tokenizer_folder, folder, capsys)


@pytest.fixture
def corpus(tmp_path):
    return write_jsonl(tmp_path / "corpus.jsonl", TEXTS)
