"""The analysis of saved runs: every checkpoint on one text, once."""

import json
import re
import shutil
from itertools import chain

import numpy as np
import pytest
import torch

import analyze_routing
from conversions import make_tokenizer
from data_tools import write_jsonl
from remoe.analysis.maps import RoutingMaps
from remoe.analysis.stability import flip_rate

WORDS = "the a of to and".split()


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A tokenizer of the runs' vocabulary and two domains of other words."""
    folder = tmp_path_factory.mktemp("text")
    make_tokenizer(folder / "tokenizer", 512)
    generator = np.random.default_rng(0)
    for name, first in (("code", 0), ("prose", 200)):
        ids = generator.zipf(1.4, (8, 60)) % 250 + first
        texts = [" ".join([WORDS[row[0] % 5], *(f"word{i}" for i in row)]) for row in ids]
        write_jsonl(folder / f"{name}.valid.jsonl", texts)
    return folder


@pytest.fixture
def analyse(text, tmp_path, capsys, single_rank):
    """Analyse runs; gives the status and what was said."""

    def run(*words, with_text=True):
        defaults = {"--output": tmp_path, "--tokens": 384}
        if with_text:
            defaults |= {"--text": text, "--tokenizer": text / "tokenizer"}
        missing = [item for item in defaults.items() if item[0] not in words]
        status = analyze_routing.main([str(word) for word in (*words, *chain(*missing))])
        said = capsys.readouterr()
        return status, said.out + said.err

    return run


@torch.no_grad()
def routing_of(folder, step, ids):
    """By another way: each layer's router run alone on what it was given."""
    from megatron.remoe.inference.stored_model import load_model

    model, _ = load_model(folder, ckpt_step=step)
    inputs, handles = {}, []
    for i, layer in enumerate(model.decoder.layers):
        handles.append(
            layer.mlp.router.register_forward_pre_hook(
                lambda _, given, i=i: inputs.update({i: given[0]})
            )
        )
    maps = []
    for row in torch.from_numpy(ids).long():
        model(row[None], torch.arange(len(row))[None], None)
        routers = [layer.mlp.router for layer in model.decoder.layers]
        logits = [inputs[i][:, 0] @ router.weight.T for i, router in enumerate(routers)]
        maps.append(torch.stack(logits))
    return torch.cat(maps, 1)


def test_every_checkpoint_is_mapped_and_every_figure_written(saved_runs, analyse, tmp_path):
    status, said = analyse(saved_runs / "remoe")
    assert status == 0, said
    maps = [RoutingMaps.load(tmp_path / f"remoe/maps-{step:08d}.npz") for step in (2, 4)]
    for one in maps:
        expected = routing_of(saved_runs / "remoe", one.step, one.token_ids) > 0
        assert np.array_equal(one.routing_map(), expected.numpy())
    results = json.loads((tmp_path / "remoe/analysis.json").read_text())
    assert [found["step"] for found in results["checkpoints"]] == [2, 4]
    (flips,) = results["flips"]
    expected = flip_rate(*(one.routing_map() for one in maps))
    assert flips["flip_rate"] == pytest.approx(expected)
    assert 0 < expected < 0.5
    assert results["domain_names"] == ["code", "prose"]
    assert (results["method"], results["topk"], results["moe_layers"]) == ("relu", 1, [1, 2])
    assert "| 4 " in said


def test_a_second_call_makes_only_what_is_missing_damaged_or_of_another_text(
    saved_runs, analyse, tmp_path, text
):
    assert analyse(saved_runs / "topk", "--steps", 4)[0] == 0
    path = tmp_path / "topk/maps-00000004.npz"
    before = path.stat().st_mtime_ns
    status, said = analyse(saved_runs / "topk")
    assert status == 0
    assert ("step 2: 384 tokens" in said, "step 4: 384 tokens" in said) == (True, False)
    assert path.stat().st_mtime_ns == before
    path.write_bytes(path.read_bytes()[:500])
    status, said = analyse(saved_runs / "topk", "--steps", 4)
    assert status == 0
    assert "maps-00000004.npz: not routing maps" in said
    status, said = analyse(saved_runs / "topk", "--steps", 4, "--sequence-length", 32)
    assert (status, "step 4: 384 tokens" in said) == (0, True)
    assert "maps-00000004.npz: of another text, of 384 tokens; made again" in said
    maps = RoutingMaps.load(path)
    assert (maps.meta["method"], maps.sequence_length) == ("topk", 32)
    assert (maps.routing_map().sum(-1) == 1).all()


def test_both_forms_have_the_same_maps(saved_runs, analyse, tmp_path, text):
    from megatron.remoe.conversion.options import Options
    from megatron.remoe.conversion.to_hugging_face import to_hugging_face

    folder = tmp_path / "converted"
    tokenizer = text / "tokenizer"
    to_hugging_face(Options(input=saved_runs / "remoe", output=folder, tokenizer=tokenizer))
    assert analyse(folder, "--sequence-length", 64)[0] == 0
    assert analyse(saved_runs / "remoe", "--steps", 4)[0] == 0
    there = RoutingMaps.load(tmp_path / "converted/maps-00000000.npz")
    here = RoutingMaps.load(tmp_path / "remoe/maps-00000004.npz")
    assert np.array_equal(there.routing_map(), here.routing_map())
    assert there.losses == pytest.approx(here.losses, rel=1e-4, nan_ok=True)
    assert (there.meta["method"], there.meta["topk"]) == ("relu", 1)


def test_what_cannot_be_analysed_is_said_in_one_line(saved_runs, analyse, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "begun/iter_0000004").mkdir(parents=True)
    shutil.copytree(saved_runs / "topk_torch/iter_0000004", tmp_path / "form/iter_0000004")
    (tmp_path / "bad.npz").write_text("no")
    (tmp_path / "empty.jsonl").touch()
    remoe = saved_runs / "remoe"
    cases = {
        "no such folder": [tmp_path / "none"],
        "no checkpoint there": [tmp_path / "empty"],
        "none of its 1 checkpoints is whole": [tmp_path / "begun"],
        "is not in format torch_dist": [tmp_path / "form"],
        "the model is dense: it has no routing": [saved_runs / "dense"],
        "--steps 3: .* has checkpoints of steps 2, 4": [remoe, "--steps", 3],
        "remoe: this RUN is given twice": [remoe, remoe],
        "--text: .*empty.jsonl: holds no text": [remoe, "--text", tmp_path / "empty.jsonl"],
        "--text: .*bad.npz, line 1: not an object": [remoe, "--text", tmp_path / "bad.npz"],
        "--text .*empty: no .jsonl file there": [remoe, "--text", tmp_path / "empty"],
        "bad.npz: cannot be written to; .* --output": [remoe, "--output", tmp_path / "bad.npz"],
        "--records: files of one run": [remoe, remoe, "--records", tmp_path / "bad.npz"],
        "not a routing record": [remoe, "--records", tmp_path / "bad.npz"],
        "--sequence-length 1: must be at least 2": [remoe, "--sequence-length", 1],
    }
    for message, words in cases.items():
        status, said = analyse(*words)
        lines = [line for line in said.splitlines() if "error:" in line]
        assert (status, len(lines)) == (1, 1), said
        assert re.search(message, lines[0]), lines[0]
        assert "Traceback" not in said


def test_a_run_on_mock_data_asks_for_text(saved_runs, analyse):
    status, said = analyse(saved_runs / "remoe", with_text=False)
    assert status == 1
    assert "names no data to validate on: give JSON-lines files by --text" in said


def test_a_tokenizer_of_another_model_is_refused(saved_runs, analyse, text, tmp_path):
    make_tokenizer(tmp_path / "large", 900)
    write_jsonl(tmp_path / "a.jsonl", [" ".join(f"word{i}" for i in range(400, 880))])
    words = ["--text", tmp_path / "a.jsonl", "--tokenizer", tmp_path / "large"]
    status, said = analyse(saved_runs / "remoe", *words, with_text=False)
    assert status == 1
    assert "the model 512 tokens" in said


def test_a_smaller_tokenizer_than_the_runs_is_told(saved_runs, analyse, text, tmp_path):
    make_tokenizer(tmp_path / "small", 300)
    words = ["--text", text, "--tokenizer", tmp_path / "small"]
    _, said = analyse(saved_runs / "remoe", *words, with_text=False)
    assert "has 300 tokens, and remoe was trained with 385 or more" in said


def test_a_tokenizer_that_has_no_effect_is_refused(saved_runs, analyse, text):
    words = ["--tokenizer", text / "tokenizer"]
    status, said = analyse(saved_runs / "remoe", *words, with_text=False)
    assert (status, "--tokenizer: has no effect on a run's own text" in said) == (1, True)
