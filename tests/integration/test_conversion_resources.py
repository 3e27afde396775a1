"""Bounded memory, and going on after an end at any moment."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from conversions import FAMILIES, tensors
from megatron.remoe.conversion import to_hugging_face as there
from megatron.remoe.conversion import to_megatron as back
from megatron.remoe.conversion.hf_config import config_of
from megatron.remoe.conversion.hf_folder import HuggingFaceReader
from megatron.remoe.conversion.megatron_reader import MegatronReader
from megatron.remoe.conversion.megatron_settings import stored_args
from megatron.remoe.conversion.names import rules
from megatron.remoe.conversion.options import Options
from megatron.remoe.conversion.shards import Planned, split_into_shards, write_index, write_shard

MIB = 2**20


def large(family, layers=8):
    """About 200 MB; the largest tensors, one layer's experts, have 17 MB."""
    model = FAMILIES[family]
    shape = {"hidden_size": 256, "ffn_width": 1024, "num_layers": layers, "tied": False}
    experts = replace(model.experts, num_experts=8, width=1024, layers=(1,) * layers)
    return replace(model, **shape, experts=replace(experts, shared_width=0, shared_gate=False))


def write_hugging_face(folder, model):
    """Random weights, as any tool would leave them."""
    groups = [
        ([Planned(name, shape, torch.float32)], partial(_random, shape))
        for rule in rules(model)
        for name, shape in rule.hf.items()
        if not name.startswith("padding")
    ]
    shards = split_into_shards(groups, 50 * MIB)
    folder.mkdir()
    for shard in shards:
        write_shard(folder / shard.name, shard, lambda written: None)
    write_index(folder, shards)
    assert config_of(model, "float32", {})


def _random(shape):
    return [torch.rand(shape)]


def memory_of(run):
    """Bytes by which the peak of this process is above what it has at the start."""
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def _status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


@pytest.mark.parametrize("family", ["remoe", "mixtral"])
def test_a_model_needs_the_memory_of_one_layer(family, tmp_path):
    model = large(family)
    write_hugging_face(tmp_path / "hf", model)
    size = sum(path.stat().st_size for path in (tmp_path / "hf").iterdir())
    assert size > 190 * MIB
    args = stored_args(model, torch.float32, 16, "local", {})
    options = Options(tmp_path, tmp_path, quiet=True, max_shard_size=50 * MIB)
    (tmp_path / "back").mkdir()

    def to_megatron():
        reader = HuggingFaceReader(tmp_path / "hf")
        back.write_release(tmp_path / "back", reader, model, args, torch.float32, options)

    def to_hugging_face():
        reader = MegatronReader(tmp_path / "back/release")
        (tmp_path / "again").mkdir()
        there.write_weights(tmp_path / "again", reader, rules(model), {}, torch.float32, options)

    assert memory_of(to_megatron) < 70 * MIB
    assert memory_of(to_hugging_face) < 70 * MIB
    one, other = HuggingFaceReader(tmp_path / "hf"), HuggingFaceReader(tmp_path / "again")
    name = "model.layers.7.self_attn.k_proj.weight"
    assert torch.equal(one.read(name), other.read(name))


class Killed(BaseException):
    """What no handler of the code catches, as it catches no SIGKILL."""


def stop_after(monkeypatch, reader, calls):
    """Let the reader's `calls`-th tensor be the last."""
    read, done = reader.read, []

    def read_or_end(self, what):
        done.append(what)
        if len(done) > calls:
            raise Killed
        return read(self, what)

    monkeypatch.setattr(reader, "read", read_or_end)
    return done


@pytest.fixture(scope="module")
def whole(saved_runs, single_rank, tmp_path_factory):
    """What undisturbed conversions leave."""
    folder = tmp_path_factory.mktemp("whole")
    there.to_hugging_face(options(saved_runs / "remoe", folder / "hf"))
    back.to_megatron(options(folder / "hf", folder / "back"))
    return folder


def options(source, target):
    return Options(source, target, max_shard_size=100_000, quiet=True)


@pytest.mark.parametrize("calls", [0, 9, 15])
def test_a_conversion_to_hugging_face_goes_on(calls, whole, saved_runs, tmp_path, monkeypatch):
    task = options(saved_runs / "remoe", tmp_path / "hf")
    with monkeypatch.context() as patch:
        stop_after(patch, MegatronReader, calls)
        with pytest.raises(Killed):
            there.to_hugging_face(task)
    partial_folder = tmp_path / "hf.partial"
    assert not (tmp_path / "hf").exists()
    written = times(partial_folder, "model-*.safetensors")
    assert bool(written) == (calls > 0)
    with monkeypatch.context() as patch:
        done = stop_after(patch, MegatronReader, 10**6)
        there.to_hugging_face(task)
    assert len(done) <= 19 - len(written), "what was written is not read again"
    assert written.items() <= times(tmp_path / "hf", "model-*.safetensors").items()
    assert not partial_folder.exists()
    assert same_files(tmp_path / "hf", whole / "hf")


@pytest.mark.parametrize("calls", [0, 9, 18])
def test_a_conversion_to_megatron_goes_on(calls, whole, tmp_path, monkeypatch):
    task = options(whole / "hf", tmp_path / "back")
    with monkeypatch.context() as patch:
        stop_after(patch, HuggingFaceReader, calls)
        with pytest.raises(Killed):
            back.to_megatron(task)
    assert not (tmp_path / "back").exists()
    written = times(tmp_path / "back.partial/release", "*.done")
    assert len(written) > (calls > 0), "the first holds the run's objects alone"
    with monkeypatch.context() as patch:
        done = stop_after(patch, HuggingFaceReader, 10**6)
        back.to_megatron(task)
    assert len(done) <= 24 - len(written)
    ours, theirs = tensors(tmp_path / "back/release"), tensors(whole / "back/release")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not list((tmp_path / "back/release").glob("*.done"))


def test_another_task_does_not_go_on_with_what_is_there(whole, saved_runs, tmp_path, monkeypatch):
    task = options(saved_runs / "remoe", tmp_path / "hf")
    with monkeypatch.context() as patch:
        stop_after(patch, MegatronReader, 9)
        with pytest.raises(Killed):
            there.to_hugging_face(task)
    there.to_hugging_face(replace(task, dtype=torch.bfloat16))
    assert "bfloat16" in (tmp_path / "hf/config.json").read_text()
    assert HuggingFaceReader(tmp_path / "hf").dtype("model.norm.weight") == torch.bfloat16


def times(folder, pattern):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob(pattern)}


def same_files(one, other):
    names = sorted(path.name for path in one.rglob("*.safetensors"))
    assert names == sorted(path.name for path in other.rglob("*.safetensors"))
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)
