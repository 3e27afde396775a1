"""Routing maps on disk."""

import json

import numpy as np
import pytest

from remoe.analysis.maps import RoutingMaps, pack

META = {
    "format": 1,
    "step": 30,
    "run": "a",
    "method": "relu",
    "topk": 1,
    "num_experts": 10,
    "moe_layers": [2, 4],
    "domain_names": ["code", "prose"],
    "vocab_size": 50,
}
MAP = np.random.default_rng(0).random((2, 12, 10)) < 0.3


def make(**changes):
    fields = {
        "meta": META,
        "token_ids": np.arange(12, dtype=np.int32).reshape(3, 4),
        "domains": np.array([0, 0, 1], np.int32),
        "maps": pack(MAP),
    }
    return RoutingMaps(**(fields | changes))


def test_a_map_comes_back_for_experts_that_fill_no_byte():
    assert np.array_equal(make().routing_map(), MAP)
    assert make().maps.shape == (2, 12, 2)


def test_a_file_comes_back_and_needs_no_pickle(tmp_path):
    gates = MAP.astype(np.float16)
    losses = np.full((3, 4), np.nan, np.float32)
    make(gates=gates, losses=losses).save(tmp_path / "new/maps.npz")
    read = RoutingMaps.load(tmp_path / "new/maps.npz")
    assert read.meta == META
    assert np.array_equal(read.routing_map(), MAP)
    assert np.array_equal(read.gates, gates)
    assert np.array_equal(read.losses, losses, equal_nan=True)
    with np.load(tmp_path / "new/maps.npz", allow_pickle=False) as file:
        assert json.loads(str(file["meta"])) == META
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["maps.npz"]


def test_what_is_not_recorded_is_none(tmp_path):
    make().save(tmp_path / "maps.npz")
    read = RoutingMaps.load(tmp_path / "maps.npz")
    assert (read.gates, read.losses) == (None, None)


def test_each_token_has_the_domain_of_its_sequence():
    assert make().token_domains().tolist() == [0] * 8 + [1] * 4


def test_another_text_is_told_apart():
    maps = make()
    assert maps.is_of(maps.token_ids, maps.domains, ["code", "prose"])
    assert not maps.is_of(maps.token_ids + 1, maps.domains, ["code", "prose"])
    assert not maps.is_of(maps.token_ids[:2], maps.domains[:2], ["code", "prose"])
    assert not maps.is_of(maps.token_ids, maps.domains, ["code", "law"])


def damaged(path):
    make().save(path)
    path.write_bytes(path.read_bytes()[:300])


def of_a_later_format(path):
    make(meta=META | {"format": 2}).save(path)


def of_other_layers(path):
    make().save(path)
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **(arrays | {"maps": arrays["maps"][:1]}))


def with_other(**changes):
    """Maps that hold indices of nothing, or lack a word."""
    return lambda path: make(**changes).save(path)


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (damaged, "not routing maps .*not a zip file"),
        (lambda path: path.write_text("text"), "pickle"),
        (lambda path: path.write_bytes(b""), "No data left"),
        (lambda path: np.savez(path, a=np.zeros(2)), "meta"),
        (of_a_later_format, "format 2, this version reads 1"),
        (of_other_layers, r"maps is \(1, 12, 2\)"),
        (with_other(domains=np.array([0, 0, 2])), "domains holds 2, and there are 2"),
        (with_other(token_ids=np.arange(12).reshape(3, 4) - 1), "token_ids holds what is no index"),
        (with_other(meta=META | {"vocab_size": 11}), "token_ids holds 11, and there are 11"),
        (
            with_other(meta={name: META[name] for name in META if name != "topk"}),
            "its meta lacks topk",
        ),
        (lambda path: None, "No such file"),
    ],
    ids=[
        *("truncated", "text", "empty", "another npz", "later format", "other shapes"),
        *("unknown domain", "negative token", "larger vocabulary", "no topk", "missing"),
    ],
)
def test_a_file_that_is_none_is_refused_by_name(tmp_path, write, reason):
    write(tmp_path / "maps.npz")
    with pytest.raises(ValueError, match=reason) as error:
        RoutingMaps.load(tmp_path / "maps.npz")
    assert str(tmp_path / "maps.npz") in str(error.value)
    assert "\n" not in str(error.value)
