"""Wrong input is refused in one line before anything is written, and nothing of it is run."""

import json
import os
import re
import shutil

import pytest
import torch

from checkpoints import flip, truncate
from conversions import make_tokenizer
from megatron.remoe.conversion.architecture import ConversionError
from megatron.remoe.conversion.options import Options
from megatron.remoe.conversion.to_hugging_face import to_hugging_face
from megatron.remoe.conversion.to_megatron import to_megatron

INDEX = "model.safetensors.index.json"
SHARD = "model-00002-of-00006.safetensors"


@pytest.fixture(scope="module")
def exported(saved_runs, single_rank, tmp_path_factory):
    """A dense model in several shards, with a tokenizer of its size."""
    folder = tmp_path_factory.mktemp("exported")
    make_tokenizer(folder / "tokenizer", 512)
    source = Options(saved_runs / "dense", folder / "hf", tokenizer=folder / "tokenizer")
    to_hugging_face(Options(**vars(source) | {"max_shard_size": 100_000, "quiet": True}))
    assert (folder / "hf" / SHARD).is_file()
    return folder


@pytest.fixture
def folder(exported, tmp_path):
    """A copy to damage."""
    shutil.copytree(exported / "hf", tmp_path / "hf")
    return tmp_path / "hf"


def refused(convert, source, target, **more):
    """What is said; and that nothing was left."""
    with pytest.raises(ValueError) as error:
        convert(Options(source, target, quiet=True, **more))
    assert "\n" not in str(error.value)
    assert not target.exists()
    assert not target.with_name(target.name + ".partial").exists()
    return str(error.value)


def rewrite(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def without(name):
    return lambda folder: (folder / name).unlink()


def change(name, **changes):
    return lambda folder: rewrite(folder / name, **changes)


def into_pickle(folder):
    for path in [*folder.glob("model*")]:
        path.unlink()
    torch.save({}, folder / "pytorch_model.bin")


def other_index(folder):
    names = json.loads((folder / INDEX).read_text())["weight_map"]
    rewrite(folder / INDEX, weight_map=dict.fromkeys(names, "../secret.safetensors"))


WRONG = {
    "a shard is missing": (without(SHARD), f"{SHARD}: is missing \\({INDEX} names it\\)"),
    "a shard is truncated": (lambda f: truncate(f / SHARD), f"{SHARD}: truncated or damaged"),
    "the head of a shard": (lambda f: flip(f / SHARD, 0.0), f"{SHARD}: truncated or damaged"),
    "an empty shard": (lambda f: (f / SHARD).write_bytes(b""), f"{SHARD}: truncated or damaged"),
    "no weights": (lambda f: (f / INDEX).unlink(), "neither model.safetensors nor"),
    "pickles": (into_pickle, r"pytorch_model\.bin: is a pickle, which could run code: refused"),
    "an index that leaves the folder": (other_index, "names '../secret.safetensors': refused"),
    "no config": (without("config.json"), r"config\.json: is missing"),
    "a damaged config": (
        lambda f: (f / "config.json").write_text("{"),
        r"config\.json: cannot be read",
    ),
    "another architecture": (
        change("config.json", model_type="gpt2"),
        "model_type 'gpt2' cannot be converted: only llama, ",
    ),
    "a model that is none of language": (
        change("config.json", architectures=["LlamaForSequenceClassification"]),
        "is not the language model LlamaForCausalLM",
    ),
    "foreign code": (
        change("config.json", auto_map={"AutoModelForCausalLM": "evil.Model"}),
        r"asks to run foreign code \(auto_map AutoModelForCausalLM: evil\.Model\): refused",
    ),
    "foreign code that is named as ours": (
        change("config.json", auto_map={"AutoConfig": "modeling_remoe.ReMoEConfig"}),
        "asks to run foreign code",
    ),
    "foreign code of ReMoE's type": (
        change("config.json", model_type="remoe", auto_map={"AutoModel": "evil.Model"}),
        "asks to run foreign code",
    ),
    "foreign code of a tokenizer": (
        change("tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Tokenizer", None]}),
        "asks to run foreign code",
    ),
    "fewer layers than weights": (
        change("config.json", num_hidden_layers=1),
        r"model\.layers\.1\..* and 8 more has no place in Megatron's form",
    ),
    "more layers than weights": (
        change("config.json", num_hidden_layers=3),
        r"the tensor model\.layers\.2\.input_layernorm\.weight is missing",
    ),
    "another width": (
        change("config.json", intermediate_size=96),
        r"gate_proj\.weight is \[128, 64\], config\.json says \[96, 64\]",
    ),
    "a padding that asks for all memory": (
        change("megatron/settings.json", make_vocab_size_divisible_by=10**9),
        "is to be a multiple of 1000000000: give --make-vocab-size-divisible-by, 1 to 65536",
    ),
    "a smaller vocabulary than the tokenizer's": (
        change("config.json", vocab_size=500),
        r"the tokenizer has 512 tokens, config\.json of .* says 500",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_hugging_face_folder_is_refused_in_one_line(kind, folder, tmp_path):
    damage, message = WRONG[kind]
    marker = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w')")
    damage(folder)
    assert re.search(message, said := refused(to_megatron, folder, tmp_path / "out")), said
    assert not marker.exists()


def test_an_output_folder_that_is_not_empty_is_left_as_it_is(exported, saved_runs, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("mine")
    for convert, source in (
        (to_megatron, exported / "hf"),
        (to_hugging_face, saved_runs / "dense"),
    ):
        with pytest.raises(ConversionError, match="out: the folder is not empty: name a new one"):
            convert(Options(source, tmp_path / "out", quiet=True))
    assert os.listdir(tmp_path / "out") == ["mine"]


def test_another_tokenizer_of_the_same_size_is_refused(exported, folder, tmp_path):
    make_tokenizer(tmp_path / "other", 512, first="other")
    said = refused(to_megatron, folder, tmp_path / "out", tokenizer=tmp_path / "other")
    assert "differs from the model's own" in said


def test_a_tokenizer_that_splits_otherwise_is_refused(exported, folder, tmp_path):
    make_tokenizer(tmp_path / "other", 512, lowercase=True)
    said = refused(to_megatron, folder, tmp_path / "out", tokenizer=tmp_path / "other")
    assert "the same tokens, but another way to split text" in said


def test_a_tokenizer_of_another_size_than_the_run_s_is_refused(saved_runs, single_rank, tmp_path):
    make_tokenizer(tmp_path / "other", 700)
    said = refused(
        to_hugging_face, saved_runs / "dense", tmp_path / "out", tokenizer=tmp_path / "other"
    )
    assert "has 700 tokens, 768 with padding, but the checkpoint has 512" in said


def test_a_damaged_checkpoint_of_megatron_is_refused(saved_runs, tmp_path):
    shutil.copytree(saved_runs / "dense", tmp_path / "run")
    data = next((tmp_path / "run/iter_0000004").glob("*.distcp"))
    truncate(data)
    said = refused(to_hugging_face, tmp_path / "run", tmp_path / "out")
    assert f"{data.name}: truncated" in said


def test_format_torch_is_refused_with_what_to_do(saved_runs, tmp_path):
    said = refused(to_hugging_face, saved_runs / "topk_torch", tmp_path / "out")
    assert "is not in format torch_dist: load it once" in said


def test_weights_that_compute_something_else_leave_nothing(saved_runs, tmp_path, monkeypatch):
    """The check at the end, where a rule is wrong: gate and up changed places."""
    from megatron.remoe.conversion import names

    monkeypatch.setattr(names, "split_gate_up", lambda fused: list(fused.chunk(2))[::-1])
    said = refused(to_hugging_face, saved_runs / "dense", tmp_path / "out")
    assert "the two forms disagree, nothing is left" in said


def test_text_that_is_too_short_is_refused(saved_runs, tmp_path):
    (tmp_path / "text").write_text("short")
    said = refused(to_hugging_face, saved_runs / "dense", tmp_path / "out", text=tmp_path / "text")
    assert "has 5 tokens: give at least 64" in said
