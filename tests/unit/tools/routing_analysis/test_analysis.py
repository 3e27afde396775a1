"""Maps that are there are used again only where they are of this text and of this checkpoint."""

import os

import numpy as np
import pytest

from remoe.analysis.maps import RoutingMaps, pack
from routing_analysis.analysis import _is_there
from routing_analysis.calibration import Calibration

META = {
    **{"format": 1, "step": 4, "run": "a", "method": "relu", "topk": 1},
    **{"num_experts": 2, "moe_layers": [1], "domain_names": ["code"], "vocab_size": 9},
}


@pytest.fixture
def made(tmp_path):
    """Calibration, maps of it, and a checkpoint with the analysis in its folder (Hugging Face)."""
    text = Calibration(np.array([[1, 2, 3]], np.int32), np.array([0], np.int32), ["code"], "here")
    weights, path = tmp_path / "model.safetensors", tmp_path / "analysis" / "maps-00000004.npz"
    weights.write_bytes(b"weights")
    os.utime(weights, (1000, 1000))
    maps = pack(np.ones((1, 3, 2), bool))
    RoutingMaps(META, text.token_ids, text.domains, maps).save(path)
    os.utime(path, (2000, 2000))
    return text, path, tmp_path


def test_maps_younger_than_their_checkpoint_are_used_again(made):
    text, path, checkpoint = made
    (path.parent / "analysis.json").write_text("{}")  # younger, but no weights
    assert _is_there(path, text, checkpoint)


def test_maps_of_another_training_in_the_same_folder_are_made_again(made, capsys):
    text, path, checkpoint = made
    os.utime(checkpoint / "model.safetensors", (3000, 3000))
    assert not _is_there(path, text, checkpoint)
    assert f"{path}: older than {checkpoint}; made again" in capsys.readouterr().out
