"""Active experts of a trained model are moved by thresholds; its weights stay."""

import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM


def reached(said):
    """Active experts before and after."""
    return [float(line.split("active experts ")[1].split()[0]) for line in said.splitlines()[:2]]


@pytest.mark.parametrize("active", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("shares", ["one", "even"])
def test_a_copy_has_the_experts_that_were_asked_for_and_the_same_weights(
    models, call, tmp_path, active, shares
):
    words = ("--active-experts", active, "--shares", shares)
    status, said = call("set_active_experts", models / "remoe", *words)
    assert status == 0, said
    assert reached(said)[1] == pytest.approx(active, rel=0.2)
    new = tmp_path / "new"
    old_weights, weights = (load_file(f / "model.safetensors") for f in (models / "remoe", new))
    assert all(torch.equal(weights[name], value) for name, value in old_weights.items())
    model = AutoModelForCausalLM.from_pretrained(new, trust_remote_code=False)
    thresholds = model.config.router_thresholds
    flag, *values = said.splitlines()[-1].split()
    assert flag == "--moe-relu-router-thresholds"
    assert [float(value) for value in values] == thresholds  # all digits, for Megatron
    assert len(set(thresholds)) == (1 if shares == "one" else 2)
    routers = [layer.mlp.router for layer in model.model.layers]
    assert [router.threshold for router in routers] == thresholds


def test_in_place_changes_the_configuration_alone(models, call, tmp_path):
    import shutil

    folder = shutil.copytree(models / "remoe", tmp_path / "mine")
    before = json.loads((folder / "config.json").read_text())
    words = ("--active-experts", 1, "--in-place")
    assert call("set_active_experts", folder, *words, with_output=False)[0] == 0
    after = json.loads((folder / "config.json").read_text())
    assert len(after.pop("router_thresholds")) == 2
    before.pop("router_thresholds", None)
    assert after == before


def test_a_curve_has_the_model_as_trained_and_each_point(models, call, tmp_path):
    status, said = call("set_active_experts", models / "remoe", "--curve", 3, 0.5)
    assert status == 0, said
    points = json.loads((tmp_path / "new" / "curve.json").read_text())
    assert {point["asked"] for point in points} == {None, 3, 0.5}
    active = [point["active_experts"] for point in points]
    assert active == sorted(active)
    (trained,) = [point for point in points if point["asked"] is None]
    assert trained["router_thresholds"] == [0.0, 0.0]
    assert (tmp_path / "new" / "curve.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--active-experts", 5),
            "--active-experts 5: give a number above 0 and up to the 4 experts",
        ),
        (("--curve", 1, -1), "--active-experts -1: give a number above 0"),
        (("--active-experts", 1, "--in-place"), "--in-place: goes neither with --output nor"),
    ],
)
def test_what_cannot_be_is_one_line(models, call, words, message):
    status, said = call("set_active_experts", models / "remoe", *words)
    assert status == 1 and message in said and len(said.splitlines()) == 1


def test_a_model_that_does_not_route_by_relu_is_refused(models, call):
    status, said = call("set_active_experts", models / "mixtral", "--active-experts", 1)
    assert status == 1 and "is a mixtral model: give one of remoe" in said


def test_without_a_place_to_write_nothing_is_done(models, call):
    words = (models / "remoe", "--active-experts", 1)
    status, said = call("set_active_experts", *words, with_output=False)
    assert status == 1 and "--output: give a new folder (or --in-place" in said
