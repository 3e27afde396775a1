"""Calibration text from JSON lines and from indexed data."""

from argparse import Namespace

import numpy as np
import pytest
import torch

from data_tools import write_jsonl
from evaluation.errors import EvaluationError
from routing_analysis.indexed_text import find_beside, streams_of_run
from routing_analysis.json_text import streams_of_files


class Letters:
    """A tokenizer of letters."""

    eos_token_id = 0

    def __call__(self, text, **_):
        return {"input_ids": [ord(letter) for letter in text]}


def test_documents_of_files_follow_one_another_with_an_end_between(tmp_path):
    write_jsonl(tmp_path / "code.valid.jsonl", ["ab", "", "c"])
    write_jsonl(tmp_path / "prose.valid.jsonl", ["de"])
    code, prose = streams_of_files([tmp_path], Letters(), 100)
    assert (code.name, prose.name) == ("code", "prose")
    assert code.read(0, code.length).tolist() == [97, 98, 0, 99, 0]
    assert code.read(1, 2).tolist() == [98, 0]


def test_a_long_file_is_read_a_few_times_as_far_as_is_wanted(tmp_path):
    path = write_jsonl(tmp_path / "a.jsonl", ["x" * 9] * 1000)
    (found,) = streams_of_files([path], Letters(), 10)
    assert found.length == 80


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(EvaluationError, match=r"--text .*none: no such file or folder"):
        streams_of_files([tmp_path / "none"], Letters(), 10)


def test_two_files_of_one_domain_are_refused(tmp_path):
    (tmp_path / "b").mkdir()
    files = [write_jsonl(p / "a.jsonl", ["x"]) for p in (tmp_path, tmp_path / "b")]
    with pytest.raises(EvaluationError, match=r"domain a is .* already"):
        streams_of_files(files, Letters(), 10)


@pytest.fixture(scope="module")
def indexed(tmp_path_factory):
    """Ten documents of 1 to 10 tokens: 100, then 200, 201, then 300, ..."""
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    folder = tmp_path_factory.mktemp("project") / "data"
    folder.mkdir()
    builder = IndexedDatasetBuilder(str(folder / "code_text_document.bin"), np.int32)
    for i in range(1, 11):
        builder.add_item(torch.arange(100 * i, 100 * i + i))
        builder.end_document()
    builder.finalize(str(folder / "code_text_document.idx"))
    return folder / "code_text_document"


def stored(**given):
    names = "data_path data_args_path train_data_path valid_data_path test_data_path"
    names += " per_split_data_args_path multiple_validation_sets validation_set_names split"
    return Namespace(**(dict.fromkeys(names.split()) | given))


def test_the_validation_part_of_a_split_is_read_across_documents(indexed):
    """Of ten documents a split of 6,3,1 leaves the seventh to the ninth."""
    args = stored(data_path=["1", str(indexed)], split="6,3,1")
    (found,) = streams_of_run(args, indexed.parent)
    assert (found.name, found.length) == ("code", 7 + 8 + 9)
    expected = [*range(700, 707), *range(800, 808), *range(900, 909)]
    for start in range(24):
        for count in {1, min(5, 24 - start), 24 - start}:
            assert found.read(start, count).tolist() == expected[start : start + count]


def test_megatron_cuts_the_same_part(indexed):
    from megatron.core.datasets.blended_megatron_dataset_config import (
        convert_split_vector_to_split_matrix,
        parse_and_normalize_split,
    )

    for split in ("98,2,0", "969,30,1", "1,1,1", "5,5"):
        part = convert_split_vector_to_split_matrix(parse_and_normalize_split(split))[1]
        first, end = (round(bound * 10.0) for bound in part)
        args = stored(data_path=[str(indexed)], split=split)
        if first == end:
            with pytest.raises(EvaluationError, match="left no validation text of code"):
                streams_of_run(args, indexed.parent)
        else:
            (found,) = streams_of_run(args, indexed.parent)
            assert found.length == sum(range(first + 1, end + 1))


def test_own_validation_data_is_read_whole_under_its_names(indexed):
    args = stored(
        valid_data_path=[str(indexed)],
        train_data_path=["elsewhere"],
        multiple_validation_sets=True,
        validation_set_names=["programs"],
    )
    (found,) = streams_of_run(args, indexed.parent)
    assert (found.name, found.length) == ("programs", 55)


def test_a_path_is_found_from_a_folder_above_the_run(indexed, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    run = indexed.parents[1] / "runs/family/run"
    run.mkdir(parents=True, exist_ok=True)
    args = stored(data_path=["data/code_text_document"], split="6,3,1")
    assert streams_of_run(args, run)[0].length == 24
    assert find_beside("data/none", run) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "names no data to validate on"),
        ({"train_data_path": ["a"]}, "names no data to validate on"),
        ({"data_path": ["0.5", "a/b"], "split": "9,1"}, r"its run's data a/b\.idx is not here"),
        ({"data_args_path": "/none.txt"}, "its run's data is not known here"),
    ],
    ids=["mock data", "training alone", "moved data", "moved list"],
)
def test_text_is_asked_for_where_the_runs_own_is_not_here(given, message, tmp_path):
    with pytest.raises(EvaluationError, match=rf"{message}.*give JSON-lines files by --text") as e:
        streams_of_run(stored(**given), tmp_path)
    assert "\n" not in str(e.value)


def test_damaged_indexed_data_is_refused(tmp_path):
    for ending in (".idx", ".bin"):
        (tmp_path / f"a{ending}").write_bytes(b"nothing")
    with pytest.raises(EvaluationError, match="the indexed data cannot be read"):
        streams_of_run(stored(data_path=[str(tmp_path / "a")], split="1,1"), tmp_path)
