"""A routing record of three tokens, made by hand: its figures, its file, and sums of records."""

import dataclasses
import json

import numpy as np
import pytest

from remoe.analysis.record import RoutingRecord

META = {
    "format": 1,
    "phase": "train",
    "step": 10,
    "num_steps": 1,
    "method": "relu",
    "topk": 1,
    "moe_layers": [2],
    "domain_names": ["books", "code"],
    "vocab_size": 4,
}


def make_record(**meta):
    """Tokens 0, 3, 3 of domains books, code, code; two experts; the first token has none.

    Gates: none; 2 of expert 0; 1 and 3 of both.
    """
    return RoutingRecord(
        meta=META | meta,
        num_tokens=np.array(3),
        tokens_per_expert=np.array([[2, 1]]),
        experts_per_token=np.array([[1, 1, 1]]),
        gate_sum=np.array([[3.0, 3.0]]),
        gate_square_sum=np.array([[5.0, 9.0]]),
        gate_max=np.array([[2.0, 3.0]], dtype=np.float32),
        domain_tokens=np.array([1, 2]),
        domain_tokens_per_expert=np.array([[[0, 0]], [[2, 1]]]),
        token_count=np.array([1, 0, 0, 2]),
        token_active=np.array([[0], [0], [0], [3]]),
        token_expert_ids=np.array([0, 1]),
        token_tokens_per_expert=np.zeros((2, 1, 2), dtype=np.int64),
    )


def arrays(record):
    return {
        field.name: getattr(record, field.name)
        for field in dataclasses.fields(record)
        if field.name != "meta"
    }


def test_figures_by_layer():
    record = make_record()
    assert (record.num_layers, record.num_experts) == (1, 2)
    assert (record.step, record.phase, record.domain_names) == (10, "train", ["books", "code"])
    assert record.active_experts.tolist() == [1.0]
    assert record.sparsity.tolist() == [0.5]
    assert record.dead_experts.tolist() == [0]
    assert record.tokens_without_expert.tolist() == [1 / 3]


def test_gates_are_those_of_active_pairs():
    record = make_record()
    assert record.gate_mean.tolist() == [[1.5, 3.0]]
    assert record.gate_std.tolist() == [[0.5, 0.0]]


def test_a_dead_expert_has_no_gate():
    record = dataclasses.replace(
        make_record(), tokens_per_expert=np.array([[2, 0]]), gate_sum=np.array([[3.0, 0.0]])
    )
    assert record.dead_experts.tolist() == [1]
    assert np.array_equal(record.gate_mean, [[1.5, np.nan]], equal_nan=True)


def test_a_file_gives_back_the_record(tmp_path):
    record = make_record()
    record.save(tmp_path / "routing" / "train-00000010.npz")
    loaded = RoutingRecord.load(tmp_path / "routing" / "train-00000010.npz")
    assert loaded.meta == record.meta
    for name, value in arrays(record).items():
        found = getattr(loaded, name)
        assert np.array_equal(found, value) and found.dtype == value.dtype, name


def test_numpy_alone_reads_it(tmp_path):
    make_record().save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as file:  # pickle is off by default
        assert json.loads(str(file["meta"])) == META
        assert file["tokens_per_expert"].tolist() == [[2, 1]]


def test_the_same_record_is_the_same_bytes(tmp_path):
    make_record().save(tmp_path / "a.npz")
    make_record().save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    make_record().save(path)
    before = path.read_bytes()

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        make_record(step=11).save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_a_sum_counts_the_tokens_of_both():
    total = make_record() + make_record(step=20)
    assert total.meta == META | {"step": 20, "num_steps": 2}
    assert total.num_tokens == 6
    assert total.gate_max.tolist() == [[2.0, 3.0]]
    assert total.token_expert_ids.tolist() == [0, 1]
    doubled = ("tokens_per_expert", "gate_sum", "token_count", "domain_tokens_per_expert")
    for name in doubled:
        assert np.array_equal(getattr(total, name), 2 * getattr(make_record(), name)), name
    assert total.gate_mean.tolist() == make_record().gate_mean.tolist()


@pytest.mark.parametrize(
    "changes", [{"phase": "valid"}, {"domain_names": ["a", "b"]}, {"method": "topk"}]
)
def test_records_of_different_things_are_not_added(changes):
    (name,) = changes
    with pytest.raises(ValueError, match=f"records with {name}"):
        make_record() + make_record(**changes)


def test_records_that_follow_other_tokens_are_not_added():
    other = dataclasses.replace(make_record(), token_expert_ids=np.array([0, 2]))
    with pytest.raises(ValueError, match="different token ids"):
        make_record() + other


def test_what_is_no_record_is_refused(tmp_path):
    (tmp_path / "text.npz").write_text("no")
    np.savez(tmp_path / "other.npz", a=np.zeros(1))
    whole = tmp_path / "whole.npz"
    make_record().save(whole)
    (tmp_path / "cut.npz").write_bytes(whole.read_bytes()[:500])
    for name in ("text", "other", "cut"):
        with pytest.raises(ValueError, match=rf"{name}\.npz: not a routing record"):
            RoutingRecord.load(tmp_path / f"{name}.npz")


def test_another_format_is_named(tmp_path):
    make_record(format=2).save(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="format 2, this version reads 1"):
        RoutingRecord.load(tmp_path / "a.npz")


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"tokens_per_expert": np.array([2, 1])}, r"tokens_per_expert is \(2,\), and .* \(1, 2\)"),
        ({"gate_sum": np.zeros((2, 2))}, r"gate_sum is \(2, 2\), and .* \(1, 2\)"),
        ({"domain_tokens": np.zeros(2)}, "domain_tokens holds float64"),
        ({"meta": META | {"domain_names": ["books"]}}, r"domain_tokens is \(2,\), and .* \(1,\)"),
        (
            {"meta": {name: META[name] for name in META if name != "step"}},
            "its meta lacks step",
        ),
    ],
)
def test_a_record_whose_parts_do_not_fit_is_refused_by_name(tmp_path, changes, reason):
    dataclasses.replace(make_record(), **changes).save(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=rf"a\.npz: not a routing record \({reason}"):
        RoutingRecord.load(tmp_path / "a.npz")
