"""Missing files are named with the flag and the mend before Megatron starts anything."""

import pytest

from command_line import MODEL, parse
from megatron.remoe.data_paths import check_data_paths

WITHOUT_DATA = [word for word in MODEL if word != "--mock-data"]


@pytest.fixture
def data(tmp_path):
    """Two data sets that are there, one without an index, one without anything."""
    for name in ("a.idx", "a.bin", "b.idx", "b.bin", "no_index.bin"):
        (tmp_path / name).touch()
    return tmp_path


def check(*words, model=WITHOUT_DATA):
    check_data_paths(parse([*model, *map(str, words)])[0])


def complaint(*words):
    with pytest.raises(ValueError, match="files are missing") as error:
        check(*words)
    return str(error.value)


@pytest.mark.parametrize(
    "blend",
    [["a"], ["a", "b"], ["0.3", "a", "0.7", "b"], ["1", "a"], ["1e-1", "a", "9", "b"]],
    ids=" ".join,
)
@pytest.mark.parametrize("flag", ["--data-path", "--train-data-path", "--valid-data-path"])
def test_what_is_there_is_accepted(data, blend, flag):
    check(flag, *(word if word[0].isdigit() else data / word for word in blend))


@pytest.mark.parametrize(
    "flag", ["--data-path", "--train-data-path", "--valid-data-path", "--test-data-path"]
)
def test_missing_data_is_named_with_its_flag(data, flag):
    message = complaint(flag, data / "nothing")
    assert f"{flag} {data}/nothing: no {data}/nothing.idx and {data}/nothing.bin" in message
    assert "tools/preprocess_data.py" in message


def test_a_missing_index_alone_is_named(data):
    message = complaint("--data-path", data / "no_index")
    assert "no_index.idx" in message and "no_index.bin" not in message


@pytest.mark.parametrize("ending", [".bin", ".idx"])
def test_an_ending_is_to_be_left_out(data, ending):
    assert f"give the prefix without its ending: {data}/a\n" in (
        complaint("--data-path", f"{data}/a{ending}") + "\n"
    )


def test_weights_of_a_blend_are_not_taken_for_files(data):
    message = complaint("--data-path", "0.3", data / "a", "0.7", data / "nothing")
    assert message.count("--data-path") == 1


def test_every_missing_file_is_listed(data):
    message = complaint("--data-path", data / "x", data / "y", data / "a")
    assert message.count("--data-path") == 2


def test_object_storage_is_left_to_megatron():
    check("--data-path", "s3://bucket/data")


def test_mock_data_needs_no_files():
    check(model=MODEL)


HF = ["--tokenizer-type", "HuggingFaceTokenizer", "--tokenizer-model"]


def test_a_tokenizer_folder_or_file_is_accepted(tmp_path):
    (tmp_path / "tokenizer.json").touch()
    check(*HF, tmp_path)
    check(*HF, tmp_path / "tokenizer.json")


@pytest.mark.parametrize("name", ["./nothing", "/nothing", "a/b/c", "nothing", "folder/nothing"])
def test_a_missing_tokenizer_is_named(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    message = complaint(*HF, name)
    assert f"--tokenizer-model {name}: no tokenizer.json there" in message
    assert "tools/train_tokenizer.py" in message


def test_the_type_that_pretrain_gpt_takes_by_default_is_checked(tmp_path):
    words = [word for word in WITHOUT_DATA if word not in ("--tokenizer-type", "NullTokenizer")]
    with pytest.raises(ValueError, match=r"no tokenizer\.json there"):
        check("--tokenizer-model", tmp_path, model=words)


def test_an_empty_tokenizer_folder_is_named(tmp_path):
    assert "no tokenizer.json there" in complaint(*HF, tmp_path)


def test_a_tokenizer_of_a_hub_is_left_to_transformers():
    check(*HF, "openai-community/gpt2")


def test_another_tokenizer_is_left_to_megatron():
    check("--tokenizer-type", "GPTSentencePieceTokenizer", "--tokenizer-model", "/nothing")


def test_a_checkpoint_that_must_exist_is_looked_for(tmp_path):
    check("--load", tmp_path / "nothing")  # Megatron starts from scratch
    check("--load", tmp_path, "--exit-on-missing-checkpoint")
    message = complaint("--load", tmp_path / "nothing", "--exit-on-missing-checkpoint")
    assert f"--load {tmp_path}/nothing: no such folder" in message


@pytest.mark.parametrize("flag", ["--save", "--tensorboard-dir", "--data-cache-path"])
def test_a_folder_to_write_to_may_be_new_but_not_out_of_reach(tmp_path, flag):
    check(flag, tmp_path)
    check(flag, tmp_path / "new" / "deep")
    (tmp_path / "file").touch()
    message = complaint(flag, tmp_path / "file" / "deep")
    assert f"{flag} {tmp_path}/file/deep: cannot write to {tmp_path}/file" in message


def test_a_folder_that_takes_no_file_is_named_also_where_its_owner_may_write():
    message = complaint("--mock-data", "--record-routing", "/proc/nope")
    assert "--record-routing /proc/nope: cannot write to /proc; give another folder" in message


def test_everything_missing_comes_in_one_message(tmp_path):
    message = complaint("--data-path", tmp_path / "x", *HF, tmp_path / "y")
    assert "--data-path" in message and "--tokenizer-model" in message
