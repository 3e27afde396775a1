"""Routing records of whole runs: the same from every layout, and training does not feel them."""

import dataclasses

import numpy as np
import pytest

from conversions import same_bits, tensors
from layout_runs import START, write_documents
from layouts import CP2, EP2, EP4, FULL, MODELS, PP2, RELU, TOPK, TP2
from ranks_budget import run_with_budget
from remoe.analysis.record import RoutingRecord

# MoE layers 2 and 3 of 4: with PP 4 the first and the last stage have no router.
MODEL = "dense layers between"
STEPS = (START + 1, START + 2)
NAMES = [f"train-{step:08d}.npz" for step in STEPS] + [f"valid-{step:08d}.npz" for step in STEPS]
WEIGHTS = "--no-load-optim --no-load-rng"
PP4 = "--pipeline-model-parallel-size 4"

LAYOUTS = [
    (2, "", RELU),
    (2, f"{PP2} --num-layers-per-virtual-pipeline-stage 1", RELU),
    (2, f"{EP2} --moe-relu-chunk-above 1 {FULL}", RELU),
    (4, f"{TP2} {PP2}", RELU),
    (4, f"{TP2} {CP2} {EP4} --expert-tensor-parallel-size 1", RELU),
    (4, PP4, RELU),
    (4, f"{CP2} {EP2} --recompute-granularity selective --recompute-modules moe", TOPK),
]


class Recorded:
    """Runs of two steps and two evaluations, from one checkpoint, on a blend of two data sets."""

    def __init__(self, runs, folder):
        self.runs, self.folder, self._records = runs, folder, {}
        data = [write_documents(folder / name) for name in ("books_text_document", "code")]
        self.data = f"--data-path 1 {data[0]} 3 {data[1]} --split 50,50,0"

    def files(self, ranks, flags, routing):
        """The files that a run leaves, by name."""
        folder = self.folder / f"{len(list(self.folder.iterdir()))}"
        folder.mkdir()
        record = f"--record-routing {folder} --record-routing-interval 1"
        evaluate = "--eval-interval 1 --eval-iters 2"
        load = f"--load {self.runs.start(MODEL, routing=routing)} --exit-interval {STEPS[-1]} {WEIGHTS}"
        every = (routing, MODELS[MODEL], self.data, load, evaluate, record, flags)
        self.runs.train(ranks, *every)
        return {path.name: path for path in sorted(folder.iterdir())}

    def records(self, ranks, flags, routing):
        """The same, read; made once."""
        key = (ranks, flags, routing)
        if key not in self._records:
            files = self.files(*key)
            self._records[key] = {name: RoutingRecord.load(path) for name, path in files.items()}
        return self._records[key]


@pytest.fixture(scope="module")
def recorded(runs, tmp_path_factory):
    return Recorded(runs, tmp_path_factory.mktemp("recorded"))


def assert_same(ours, theirs):
    """Integers are equal; gates are those of sums in another order."""
    assert ours.meta == theirs.meta
    for field in dataclasses.fields(ours)[1:]:
        a, b = getattr(ours, field.name), getattr(theirs, field.name)
        assert a.dtype == b.dtype and a.shape == b.shape
        if a.dtype.kind == "f":
            assert np.allclose(a, b, rtol=1e-4, atol=0), field.name
        else:
            assert np.array_equal(a, b), field.name


@pytest.mark.parametrize(("ranks", "flags", "routing"), LAYOUTS)
def test_every_layout_writes_the_same_records(recorded, ranks, flags, routing):
    ours, truth = recorded.records(ranks, flags, routing), recorded.records(1, "", routing)
    assert list(ours) == list(truth) == NAMES
    for name in NAMES:
        assert_same(ours[name], truth[name])


@pytest.mark.parametrize("routing", [RELU, TOPK], ids=["ReLU", "TopK"])
def test_sums_of_a_record_agree(recorded, routing):
    for name, record in recorded.records(1, "", routing).items():
        tokens = 8 * 32 * (1 if name.startswith("train") else 2)  # of a global batch
        assert record.num_tokens == tokens == record.token_count.sum()
        assert record.meta["moe_layers"] == [2, 3]
        assert record.domain_names == ["books", "code"] and (record.domain_tokens > 0).all()
        assert record.domain_tokens.sum() == tokens
        assert (record.experts_per_token.sum(axis=1) == tokens).all()
        active = record.tokens_per_expert.sum(axis=1)
        assert (record.experts_per_token @ np.arange(9) == active).all()
        assert (record.token_active.sum(axis=0) == active).all()
        # All 128 token ids are followed.
        assert (record.token_tokens_per_expert.sum(axis=2) == record.token_active).all()
        assert (record.domain_tokens_per_expert.sum(axis=0) == record.tokens_per_expert).all()


def test_topk_records_have_k_experts_a_token(recorded):
    for record in recorded.records(1, "", TOPK).values():
        assert record.meta["method"] == "topk"
        assert (record.experts_per_token[:, 2] == record.num_tokens).all()
        assert record.active_experts.tolist() == [2.0, 2.0]


def test_gates_are_those_of_the_router(recorded):
    """Softmax over the two experts of a token: its gates add up to 1."""
    for record in recorded.records(1, "", TOPK).values():
        assert np.allclose(record.gate_sum.sum(axis=1), record.num_tokens, rtol=1e-5)
        assert (record.gate_max > record.gate_mean).all() and (record.gate_max < 1).all()


@pytest.mark.parametrize("routing", [RELU, TOPK], ids=["ReLU", "TopK"])
def test_training_is_bit_equal_with_and_without_recording(runs, tmp_path, routing):
    data = "--split 50,50,0 --eval-interval 2 --eval-iters 1 --exit-interval 4 --save-interval 4"
    record = f"--record-routing {tmp_path / 'routing'} --record-routing-interval 1"
    (bare,) = runs.train(1, routing, data, f"--save {tmp_path / 'bare'}")
    (recorded,) = runs.train(1, routing, data, f"--save {tmp_path / 'recorded'}", record)
    assert recorded == bare  # losses, gradient norms, sparsity and lambdas
    assert len(list((tmp_path / "routing").iterdir())) == 4 + 2
    saved = [tensors(tmp_path / name / "iter_0000004") for name in ("bare", "recorded")]
    assert same_bits(*saved), "weights and lambda"


def test_a_resumed_run_writes_the_same_files_and_a_skipped_step_none(runs, tmp_path):
    flags = (RELU, "--split 50,50,0 --eval-interval 2 --eval-iters 1 --iterations-to-skip 3")
    record = "--record-routing-interval 1 --record-routing"
    whole, parts, save = (
        tmp_path / "whole",
        tmp_path / "parts",
        f"--save {tmp_path / 'run'} --save-interval 2",
    )
    runs.train(1, *flags, f"--exit-interval 4 {record} {whole}")
    runs.train(1, *flags, f"--exit-interval 2 {record} {parts} {save}")
    (parts / "train-00000004.npz").write_bytes(b"of a run that went on and lost it")
    runs.train(1, *flags, f"--exit-interval 4 {record} {parts} {save} --load {tmp_path / 'run'}")
    names = [f"train-{step:08d}.npz" for step in (1, 2, 4)]
    names += [f"valid-{step:08d}.npz" for step in (2, 4)]
    for folder in (whole, parts):
        assert sorted(path.name for path in folder.iterdir()) == names
    for name in names:
        assert (whole / name).read_bytes() == (parts / name).read_bytes(), name


def test_a_step_that_a_row_budget_repeats_is_recorded_once(runs, tmp_path):
    words = f"{RELU} --moe-grouped-gemm --moe-token-dispatcher-type alltoall --exit-interval 2"
    record = "--record-routing-interval 1 --record-routing"
    runs.train(1, f"{words} {record} {tmp_path / 'plain'}")
    flags = runs.words(f"{words} --moe-relu-row-budget 1.0 {record} {tmp_path / 'budget'}")
    ((_, armed),) = runs.launcher.ranks(1).run(run_with_budget, flags, True)
    assert armed == [True, False, True, False], "each step is tried with its budget, and repeated"
    for name in ("train-00000001.npz", "train-00000002.npz"):
        pair = [RoutingRecord.load(tmp_path / side / name) for side in ("plain", "budget")]
        assert_same(*pair)


def test_validation_sets_are_the_domains(runs, tmp_path):
    a, b = (write_documents(tmp_path / name) for name in ("wiki_text_document", "law"))
    data = (
        f"--train-data-path {a} --valid-data-path {a} {b} --multiple-validation-sets "
        "--full-validation --eval-interval 1 --exit-interval 1"
    )
    record = f"--record-routing {tmp_path / 'routing'}"
    runs.train(2, RELU, data, record, data=False)
    assert sorted(path.name for path in (tmp_path / "routing").iterdir()) == [
        "train-00000001.npz",
        "valid-00000001.npz",
    ]
    record = RoutingRecord.load(tmp_path / "routing" / "valid-00000001.npz")
    assert record.domain_names == ["wiki", "law"]
    assert record.domain_tokens[0] == record.domain_tokens[1] > 0, "both have the same documents"
    by_domain = record.domain_tokens_per_expert
    assert np.array_equal(by_domain[0], by_domain[1])
