"""The table over models, and the results it is made of."""

import json

import pytest

from evaluation.errors import EvaluationError
from evaluation.store import fingerprint, merge, read_results, write_results
from evaluation.table import render


def metric(value, stderr=None, better=True):
    return {"value": value, "stderr": stderr, "higher_is_better": better}


def record(num_documents=40, routing=None, chance=None, **metrics):
    found = {"metrics": metrics, "num_documents": num_documents, "routing": routing}
    return found if chance is None else found | {"chance": chance}


def model(form="Megatron", **results):
    about = {"form": form, "num_parameters": 7_540_000, "max_length": 128, "dtype": "float32"}
    return about | {"results": results}


COST = {"flops_per_token": 2.5e6}
EXPERTS = COST | {"num_experts": 8, "active_experts": 0.75, "tokens_without_expert": 0.5}


def cells(text, label):
    """The cells of the row that begins with `label`."""
    (row,) = [line for line in text.splitlines() if line.startswith(f"| {label} ")]
    return [cell.strip() for cell in row.strip("|").split("|")][1:]


def test_a_score_stands_with_its_error_its_chance_and_its_cost():
    arc = record(chance=0.25, acc=metric(0.3, 0.04), acc_norm=metric(0.5), routing=EXPERTS)
    boolq = record(chance=0.5, acc=metric(0.6, 0.03), routing=EXPERTS)
    text = render({"remoe": model(arc_easy=arc, boolq=boolq | {"majority": 0.622})})
    header = text.splitlines()[2]
    assert "| arc_easy (chance 25.0) | boolq (chance 50.0, majority 62.2) |" in header
    assert cells(text, "**remoe**") == ["30.0 ± 4.0", "60.0 ± 3.0", "45.0 ± 2.5"]
    assert cells(text, "active experts") == ["0.750", "0.750", "0.750"]
    assert cells(text, "without expert, %") == ["50.0", "50.0", "50.0"]
    assert cells(text, "MFLOPs") == ["2.5", "2.5", "2.5"]
    assert cells(text, "remoe") == ["Megatron", "7.54 M", "128", "float32"]


def test_a_dense_model_has_flops_and_no_experts():
    text = render({"dense": model(piqa=record(acc=metric(0.5), routing=COST))})
    assert cells(text, "**dense**") == ["50.0", "50.0"]
    assert "active experts" not in text
    assert "MFLOPs" in text


def test_domains_have_bits_and_perplexity():
    code = record(bits_per_byte=metric(1.5, 0.3), perplexity=metric(20.0), routing=COST)
    math = record(bits_per_byte=metric(2.5, 0.4), perplexity=metric(40.0), routing=COST)
    text = render({"dense": model(**{"domain:code": code, "domain:math": math})})
    assert cells(text, "**dense**") == ["1.500 ± 0.300", "2.500 ± 0.400", "2.000 ± 0.250"]
    assert cells(text, "perplexity") == ["20", "40", "30"]
    assert "Tasks" not in text


def test_a_task_that_a_model_lacks_is_a_dash_and_there_is_no_mean():
    one = model(a=record(acc=metric(0.5)), b=record(acc=metric(0.25)))
    text = render({"one": one, "other": model(a=record(acc=metric(0.75)))})
    assert cells(text, "**one**") == ["50.0", "25.0", "37.5"]
    assert cells(text, "**other**") == ["75.0", "-", "-"]


def test_scores_of_different_documents_show_it():
    models = {str(n): model(a=record(num_documents=n, acc=metric(0.5))) for n in (40, 100)}
    assert cells(render(models), "documents")[0] == "40 / 100"


def test_another_metric_than_accuracy_is_named_and_no_percentage():
    task = record(perplexity=metric(31.4, 2.0, better=False))
    text = render({"one": model(lm=task)})
    assert "lm (perplexity)" in text
    assert cells(text, "**one**")[0] == "31.4 ± 2.0"


def test_rows_are_of_one_width():
    text = render({"a": model(x=record(acc=metric(1.0))), "longer": model(x=record(acc=metric(0)))})
    for block in text.split("\n\n"):
        widths = {len(line) for line in block.strip().splitlines() if line.startswith("|")}
        assert len(widths) <= 1


def test_results_come_back_as_written(tmp_path):
    models = {"one": model(a=record(acc=metric(0.1 + 0.2)))}
    write_results(tmp_path / "new/results.json", models)
    assert read_results(tmp_path / "new/results.json", "--add") == models
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["results.json"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1, "models": {"a": {}}}', '{"a": 1'])
def test_a_file_of_another_kind_is_refused(tmp_path, text):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(EvaluationError, match=r"--add .*r\.json: not a results file"):
        read_results(tmp_path / "r.json", "--add")


def test_a_later_format_is_refused(tmp_path):
    (tmp_path / "r.json").write_text(json.dumps({"format": 2, "models": {}}))
    with pytest.raises(EvaluationError, match="its format is 2, not 1"):
        read_results(tmp_path / "r.json", "--output")


def test_results_of_several_files_are_joined_and_the_latest_stays():
    first = {"m": model(a=record(acc=metric(0.1)), b=record(acc=metric(0.2)))}
    last = {"m": model(a=record(acc=metric(0.9))), "n": model()}
    merged = merge([first], last)
    assert list(merged) == ["m", "n"]
    assert merged["m"]["results"]["a"]["metrics"]["acc"]["value"] == 0.9
    assert merged["m"]["results"]["b"]["metrics"]["acc"]["value"] == 0.2


def test_a_fingerprint_tells_a_changed_folder(tmp_path):
    (tmp_path / "weights").write_text("a")
    before = fingerprint(tmp_path)
    assert fingerprint(tmp_path) == before
    (tmp_path / "weights").write_text("bb")
    assert fingerprint(tmp_path) != before
