"""The one file format of records and maps."""

import os

import numpy as np
import pytest

from remoe.analysis.npz import read_npz, write_npz

VALUES = np.random.default_rng(0).integers(0, 50, 4000)


def read(path):
    return read_npz(path, "numbers", 1, lambda meta, file: (meta, file["values"]))


def test_a_file_gives_back_what_was_written_in_a_folder_that_is_made(tmp_path):
    path = tmp_path / "new" / "a.npz"
    write_npz(path, {"format": 1, "step": 3}, {"values": VALUES})
    meta, values = read(path)
    assert meta == {"format": 1, "step": 3}
    assert np.array_equal(values, VALUES)
    assert os.listdir(path.parent) == ["a.npz"]


def test_damage_within_an_array_is_told_as_the_files(tmp_path):
    path = tmp_path / "a.npz"
    write_npz(path, {"format": 1}, {"values": VALUES})
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 40] = b"\xff" * 40
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npz: not numbers \("):
        read(path)


def test_a_single_array_and_a_description_that_is_none_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", VALUES)
    np.savez(tmp_path / "b.npz", meta=np.array("[1]"), values=VALUES)
    for name in ("a.npy", "b.npz"):
        with pytest.raises(ValueError, match=f"{name}: not numbers"):
            read(tmp_path / name)


def test_a_missing_array_is_named(tmp_path):
    write_npz(tmp_path / "a.npz", {"format": 1}, {"others": VALUES})
    with pytest.raises(ValueError, match=r"not numbers .*values"):
        read(tmp_path / "a.npz")
