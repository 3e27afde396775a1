"""tools/generate.py: greedy and drawn text, prompts from everywhere, experts of each token."""

import io
import re

import pytest
import torch

import generate
from data_tools import TEXTS
from evaluation.loading import Loading
from evaluation.models import load
from generation.prompts import ask
from generation.routing_view import coloured, columns, pieces
from tiny_models import make_llama, make_remoe, save


@pytest.fixture(scope="module")
def folders(tokenizer_folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("generate")
    save(make_llama(), tokenizer_folder, root / "dense")
    save(make_remoe(), tokenizer_folder, root / "remoe")
    return root


@pytest.fixture
def run(folders, capsys):
    def call(*words, model="remoe"):
        status = generate.main([str(folders / model), "--device", "cpu", *map(str, words)])
        out, err = capsys.readouterr()
        assert status == 0, err
        return out

    return call


@pytest.fixture
def error(folders, capsys):
    def call(*words, model="remoe"):
        assert generate.main([str(folders / model), "--device", "cpu", *map(str, words)]) == 1
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
        return line

    return call


def test_without_temperature_each_token_is_the_likeliest(folders, run):
    loaded = load(folders / "remoe", Loading(device="cpu"))
    tokens = loaded.tokenizer.encode("The cat")
    start = len(tokens)
    for _ in range(5):
        with torch.no_grad():
            tokens.append(loaded.model(torch.tensor([tokens])).logits[0, -1].argmax().item())
    end = loaded.tokenizer.decode(tokens[start:], skip_special_tokens=True)
    assert run("--prompt", "The cat", "--max-new-tokens", 5) == f"The cat{end}\n"


def test_a_seed_gives_one_text_whatever_stands_before_it(run):
    drawn = ["--temperature", 1.5, "--max-new-tokens", 8]
    alone = run("--prompt", "The cat", *drawn, "--seed", 3)
    assert run("--prompt", "sat", "--prompt", "The cat", *drawn, "--seed", 3).endswith("\n" + alone)
    assert run("--prompt", "The cat", *drawn, "--seed", 4) != alone


def test_of_one_candidate_the_likeliest_is_drawn(run):
    words = ["--prompt", "The cat", "--max-new-tokens", 6]
    greedy = run(*words)
    assert run(*words, "--temperature", 1, "--top-k", 1) == greedy
    assert run(*words, "--temperature", 1, "--top-p", 1e-6) == greedy


def test_a_file_is_one_prompt(run, tmp_path):
    (tmp_path / "prompt.txt").write_text("The cat\nsat\n")
    given = run("--prompt-file", tmp_path / "prompt.txt", "--max-new-tokens", 3)
    assert given == run("--prompt", "The cat\nsat", "--max-new-tokens", 3)


def test_a_pipe_is_a_prompt_a_line(run, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("The cat\nsat\n"))
    piped = run("--max-new-tokens", 3)
    assert piped == run("--prompt", "The cat", "--prompt", "sat", "--max-new-tokens", 3)


def test_a_person_is_asked_until_the_end(monkeypatch):
    lines = iter(["one", "", "two"])

    def answer(_):
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", answer)
    assert list(ask()) == ["one", "two"]


def test_an_empty_prompt_starts_a_document(run):
    assert run("--prompt", "", "--max-new-tokens", 3) != "\n"


def test_routing_is_a_line_for_each_token(folders, run):
    text = run("--prompt", "The cat", "--max-new-tokens", 4, "--show-routing")
    loaded = load(folders / "remoe", Loading(device="cpu"))
    tokens = loaded.tokenizer.encode("The cat")
    with torch.no_grad():
        logits = loaded.model(torch.tensor([tokens]), output_router_logits=True).router_logits
    expected = torch.stack([(layer > 0).sum(-1) for layer in logits]).double().mean(0)
    numbers = [float(line.split("\t")[0]) for line in text.splitlines()]
    assert numbers[: len(tokens)] == pytest.approx(expected.tolist())
    assert text.splitlines()[0].split("\t")[1] == repr(loaded.tokenizer.decode(tokens[:1]))


def test_the_pieces_of_a_text_are_the_text(folders):
    tokenizer = load(folders / "remoe", Loading(device="cpu")).tokenizer
    for text in filter(None, TEXTS):
        tokens = tokenizer.encode(text)
        parts = pieces(tokenizer, tokens, [1.0] * len(tokens))
        assert "".join(part for part, _ in parts) == text
        assert "\ufffd" not in columns(parts)


def test_colours_end_with_each_line_and_have_a_legend():
    text = coloured([("a\n", 0.0), ("b", 2.0), ("c", 1.0)])
    plain = re.sub(r"\x1b\[[\d;]*m", "", text)
    assert plain.startswith("a↵\nbc\n\nactive experts a token and layer, mean 1.000:")
    assert all(line.count("\x1b[30") == line.count("\x1b[0m") for line in text.split("\n"))
    assert len(set(re.findall(r"48;5;(\d+)m[abc]", text))) == 3


def test_equal_numbers_have_one_colour():
    assert "mean 1.000: \x1b" in coloured([("a", 1.0), ("b", 1.0)])


def test_a_prompt_that_fills_the_context_is_refused(error):
    line = error("--prompt", "the cat " * 100)
    assert re.search(r"--prompt: \d+ tokens, and the model's context holds 64; shorten it", line)


def test_text_ends_where_the_context_does(folders, run, capsys):
    run("--prompt", "The cat", "--max-new-tokens", 62)
    assert generate.main([str(folders / "remoe"), "--prompt", "cat", "--max-new-tokens", "99"]) == 0
    assert re.search(r"the context ends after \d\d new tokens", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max-new-tokens", 0], "--max-new-tokens 0: must be at least 1"),
        (["--temperature", -1], "--temperature -1: must be 0 or more"),
        (["--temperature", "nan"], "--temperature nan: must be 0 or more"),
        (["--temperature", "1e-45"], "must be 0 or at least 0.0001"),
        (["--seed", 2**63], f"--seed {2**63}: must be a number of 64 bits"),
        (["--top-k", -1], "--top-k -1: must be 0"),
        (["--top-p", 0], "--top-p 0: must be above 0"),
        (["--top-k", 5], "give --temperature above 0"),
        (["--prompt-file", "/nowhere"], "--prompt-file /nowhere: cannot be read"),
    ],
)
def test_wrong_input_is_one_line(error, words, message):
    assert message in error(*words)


def test_a_dense_model_has_no_routing_to_show(error):
    line = error("--prompt", "a", "--show-routing", model="dense")
    assert "--show-routing: the model is dense" in line


def test_a_missing_model_is_one_line(error):
    assert "no such folder" in error("--prompt", "a", model="missing")
