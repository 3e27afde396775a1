"""`scripts/prepare_data.sh` makes what the recipes read."""

import shlex

import pytest

from launch_scripts import REMOE, REPO, dry_run, group, refusal, start


def test_prepare_data_makes_what_the_recipes_read(tmp_path):
    result = start(
        "prepare_data.sh",
        __file__,
        tmp_path,
        "--skip-bad",
        DRY_RUN="1",
        DATA_ROOT=str(tmp_path / "new"),
        WORKERS="3",
    )
    assert (result.returncode, result.stderr) == (0, "")
    tokenizer, _, preprocess = map(shlex.split, result.stdout.splitlines())
    flags = dry_run(REMOE, DATA_ROOT=str(tmp_path / "new")).flags
    assert tokenizer[1:] == [
        str(REPO / "tools/make_gpt2_tokenizer.py"),
        "--output-dir",
        *flags["--tokenizer-model"],
    ]
    given = group(preprocess[2:])
    assert given["--tokenizer-model"] == flags["--tokenizer-model"]
    assert given["--input"] == [__file__, str(tmp_path)]
    assert given["--workers"] == ["3"]
    assert given["--append-eod"] == given["--skip-bad"] == []
    assert [f"{given['--output-prefix'][0]}_{given['--json-keys'][0]}_document"] == flags[
        "--data-path"
    ]


def test_prepare_data_uses_the_tokenizer_that_is_there(tmp_path):
    (tmp_path / "gpt2_tokenizer").mkdir()
    result = start("prepare_data.sh", __file__, DRY_RUN="1", DATA_ROOT=str(tmp_path))
    assert result.returncode == 0
    assert "make_gpt2_tokenizer" not in result.stdout


def test_prepare_data_names_a_data_set_as_the_recipes_do(tmp_path):
    prepared = start(
        "prepare_data.sh", __file__, DRY_RUN="1", DATA_ROOT=str(tmp_path), DATA_NAME="web"
    )
    prefix = group(shlex.split(prepared.stdout.splitlines()[-1])[2:])["--output-prefix"][0]
    flags = dry_run(REMOE, DATA_ROOT=str(tmp_path), DATA_NAME="web").flags
    assert flags["--data-path"] == [f"{prefix}_text_document"]


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        ([], {}, "argument 1 must be a JSON-lines file, or a folder of them"),
        (["--skip-bad"], {}, "argument 1 must be a JSON-lines file, or a folder of them"),
        (["/nowhere.jsonl"], {}, "cannot read /nowhere.jsonl"),
        ([__file__], {"WORKERS": "all"}, "WORKERS must be a positive integer, got 'all'"),
        ([__file__], {"TOKENIZER_MODEL": "/typo"}, "no tokenizer at TOKENIZER_MODEL=/typo"),
    ],
)
def test_prepare_data_refuses_in_one_line(arguments, environment, message):
    assert refusal("prepare_data.sh", *arguments, **environment) == message
