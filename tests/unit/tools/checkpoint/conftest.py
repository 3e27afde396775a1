"""Folders of tiny models, and the commands of tools/checkpoint called in this process."""

import importlib
import sys

import pytest
import torch

from data_tools import REPOSITORY, TEXTS, write_jsonl
from tiny_models import make_llama, make_mixtral, make_remoe, save

# As Python does for the command itself.
sys.path.insert(0, str(REPOSITORY / "tools" / "checkpoint"))
MAKERS = {"llama": make_llama, "mixtral": make_mixtral, "remoe": make_remoe}


@pytest.fixture(scope="session")
def models(tokenizer_folder, tmp_path_factory):
    """A folder with a folder for each model."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("models")
    for name, make in MAKERS.items():
        save(make(), tokenizer_folder, folder / name)
    return folder


@pytest.fixture(scope="session")
def text(tmp_path_factory):
    words = "the cat sat on a mat and did not mind what rain there was in spring".split()
    generator = torch.Generator().manual_seed(0)
    choices = torch.randint(len(words), (60, 40), generator=generator).tolist()
    texts = [" ".join(words[i] for i in row) for row in choices]
    return write_jsonl(tmp_path_factory.mktemp("text") / "text.jsonl", TEXTS + texts)


@pytest.fixture
def call(capsys, text, tmp_path):
    """Run a command; gives its status and what it said (output and errors)."""

    def run(name, *words, with_text=True, with_output=True):
        argv = [str(word) for word in words]
        if with_text:
            argv += ["--text", str(text), "--sequence-length", "32", "--tokens", "2048"]
        if with_output:
            argv += ["--output", str(tmp_path / "new")]
        status = importlib.import_module(name).main(argv)
        said = capsys.readouterr()
        return status, said.out + said.err

    return run
