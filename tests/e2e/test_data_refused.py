"""Data that is missing, damaged or too short is named in one message before training."""

from pathlib import Path

import numpy as np
import pytest

from commands import TINY_MODEL
from forked_commands import pretrain_each

REWRITE = "write it again with tools/preprocess_data.py"


@pytest.fixture(scope="module")
def refusals(tmp_path_factory):
    """What the commands say, by the name of what is wrong."""
    folder = tmp_path_factory.mktemp("data")
    prefixes = {name: write_data(folder / name) for name in (".idx", ".bin", "short")}
    for ending in (".idx", ".bin"):
        file = Path(prefixes[ending] + ending)
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    flags = {
        "missing": ["--data-path", "no/such_text_document"],
        **{x: ["--data-path", prefixes[x], "--split", "50,50,0"] for x in (".idx", ".bin")},
        "short": ["--data-path", prefixes["short"], "--split", "969,30,1"],
    }
    words = "--tokenizer-type NullTokenizer --vocab-size 512 --train-iters 1".split()
    done = pretrain_each(*flags.values(), model=(*TINY_MODEL, *words))
    assert [one.returncode for one in done] == [2] * len(done), done[0].stderr[-2000:]
    messages = dict(zip(flags, [one.stderr for one in done], strict=True))
    # Not of the damaged: Megatron's half-built index complains of an attribute that it lacks as it goes.
    assert not any("Traceback" in messages[name] for name in ("missing", "short"))
    return messages, prefixes


def test_without_evaluation_validation_data_is_left_alone(tmp_path):
    one, other = (write_data(tmp_path / name) for name in ("one", "other"))
    words = "--tokenizer-type NullTokenizer --vocab-size 512 --train-iters 1 --eval-iters 0".split()
    data = (["--data-path", one], ["--data-path", "1", one, "1", other])
    done = pretrain_each(
        *([*paths, "--split", "50,50,0"] for paths in data), model=(*TINY_MODEL, *words)
    )
    for run in done:
        assert run.returncode == 0, run.stderr[-2000:]
        assert "iteration        1/       1" in run.stdout and "validation loss" not in run.stdout


def write_data(prefix):
    """Ten documents of a hundred tokens; returns their prefix as a word."""
    from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder

    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=DType.optimal_dtype(512))
    for _ in range(10):
        builder.add_document(np.arange(100), [100])
    builder.finalize(f"{prefix}.idx")
    return str(prefix)


def test_data_that_is_not_there_is_named(refusals):
    message = refusals[0]["missing"]
    assert "no/such_text_document.idx" in message and "tools/preprocess_data.py" in message


@pytest.mark.parametrize("ending", [".idx", ".bin"])
def test_damaged_data_is_named(refusals, ending):
    messages, prefixes = refusals
    assert f"{prefixes[ending]}{ending}" in messages[ending] and REWRITE in messages[ending]


def test_a_split_that_leaves_a_part_without_documents_is_refused_not_endless(refusals):
    reason = "no document for valid data: --split 969,30,1 gives it none of the 10 documents"
    assert reason in refusals[0]["short"]
