"""ReMoE models made of a dense and of a TopK model: what is kept, what is measured, what is refused."""

import itertools
import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

E = 4
DENSE = ("--num-experts", E, "--topk", 1)


def figures(said):
    return json.loads(said.strip().splitlines()[-1])


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)


def test_experts_are_copies_of_the_dense_layers_and_all_else_is_kept(models, call, tmp_path):
    status, said = call("from_dense", models / "llama", *DENSE, "--tune-steps", 0)
    assert status == 0, said
    old, new = load(models / "llama").state_dict(), load(tmp_path / "new").state_dict()
    for i in range(2):
        unit = torch.cat([old.pop(f"model.layers.{i}.mlp.{n}_proj.weight") for n in ("gate", "up")])
        down = old.pop(f"model.layers.{i}.mlp.down_proj.weight")
        for e in range(E):
            assert torch.equal(new[f"model.layers.{i}.mlp.experts.gate_up_proj"][e], unit)
            assert torch.equal(new[f"model.layers.{i}.mlp.experts.down_proj"][e], down)
    assert all(torch.equal(new[name], value) for name, value in old.items())
    assert AutoTokenizer.from_pretrained(tmp_path / "new").vocab_size == 300
    assert figures(said)["active_experts"] == pytest.approx(1, abs=0.3)


def test_more_active_experts_are_nearer_to_the_dense_model(models, call, tmp_path):
    words = ("from_dense", models / "llama", *DENSE, "--active-experts")
    losses = []
    for active in ("0.5", "2"):
        status, said = call(*words, active, "--output", tmp_path / active, with_output=False)
        assert status == 0, said
        losses.append(figures(said)["loss_after"] - figures(said)["loss_before"])
        assert figures(said)["active_experts"] == pytest.approx(float(active), rel=0.4)
    assert abs(losses[1]) < abs(losses[0])


def test_tuned_routers_change_nothing_else_and_leave_lambda_to_training(models, call, tmp_path):
    for steps in ("0", "3"):
        out = tmp_path / steps
        words = (*DENSE, "--tune-steps", steps, "--output", out)
        status, said = call("from_dense", models / "llama", *words, with_output=False)
        assert status == 0, said
    fitted, tuned = (load(tmp_path / steps).state_dict() for steps in ("0", "3"))
    changed = {name for name in fitted if not torch.equal(fitted[name], tuned[name])}
    routers = {f"model.layers.{i}.mlp.router.{n}" for i in (0, 1) for n in ("weight", "reg_coeff")}
    assert changed == routers
    # Three moves up or down, smaller and smaller: by 1.1, 1.07 and 1.04.
    signs = itertools.product((1, -1), repeat=3)
    reached = {1e-2 * 1.1**a * 1.07**b * 1.04**c for a, b, c in signs}
    reg_coeff = tuned["model.layers.0.mlp.router.reg_coeff"].item()
    assert any(reg_coeff == pytest.approx(value, rel=1e-5) for value in reached)


def test_the_experts_of_a_topk_model_stay_as_they_are(models, call, tmp_path):
    status, said = call("from_topk", models / "mixtral", "--tune-steps", 0)
    assert status == 0, said
    old, new = load(models / "mixtral").state_dict(), load(tmp_path / "new").state_dict()
    kept = {name for name in old if ".mlp.gate." not in name}
    assert all(torch.equal(new[name], old[name]) for name in kept)
    found = figures(said)
    assert found["active_experts"] == pytest.approx(2, abs=0.4)
    assert load(tmp_path / "new").config.num_experts_per_tok == 2


def test_a_tuned_topk_model_loads_without_this_package_and_says_its_loss(models, call, tmp_path):
    status, said = call("from_topk", models / "mixtral", "--tune-steps", 2)
    assert status == 0, said
    assert (tmp_path / "new" / "modeling_remoe.py").is_file()
    assert said.startswith("before: loss ") and "\nafter:  loss " in said


@pytest.mark.parametrize(
    ("command", "model", "words", "message"),
    [
        ("from_dense", "mixtral", DENSE, "is a mixtral model: it has experts: use from_topk.py"),
        ("from_dense", "remoe", DENSE, "is a remoe model: it is a ReMoE model already"),
        ("from_topk", "remoe", (), "is a remoe model: it is a ReMoE model already"),
        ("from_topk", "llama", (), "is a llama model: it has no experts: use from_dense.py"),
        ("from_dense", "nowhere", DENSE, "is no folder of a Hugging Face model"),
        (
            "from_dense",
            "llama",
            ("--num-experts", 1, "--topk", 1),
            "--num-experts 1: give at least 2",
        ),
        (
            "from_dense",
            "llama",
            ("--num-experts", 4, "--topk", 5),
            "--topk 5: give a number from 1 to",
        ),
        (
            "from_dense",
            "llama",
            (*DENSE, "--active-experts", 9),
            "--active-experts 9: give a number",
        ),
        (
            "from_topk",
            "mixtral",
            ("--active-experts", 0),
            "--active-experts 0: give a number above 0",
        ),
        ("from_topk", "mixtral", ("--tune-steps", -1), "--tune-steps -1: give 0 or more"),
    ],
)
def test_what_cannot_be_made_is_one_line(models, call, tmp_path, command, model, words, message):
    status, said = call(command, models / model, *words)
    assert status == 1 and message in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "new").exists()


def test_a_megatron_checkpoint_is_sent_through_the_converter(call, tmp_path):
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("4")
    status, said = call("from_topk", tmp_path)
    assert (
        status == 1 and "convert it first, with python tools/checkpoint/convert.py --to hf" in said
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.jsonl", None, "cannot be read: No such file or directory"),
        ("short.txt", b"the cat", "4 sequences of 64 are the least: give more text"),
        ("bad.jsonl", b'{"txt": 1}\n', 'bad.jsonl:1: is not a JSON object with a string "text"'),
        ("bytes.txt", b"\xff\xfe\xff", "is not UTF-8 text"),
    ],
)
def test_text_that_is_none_is_one_line(models, call, tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    words = (models / "mixtral", "--text", tmp_path / name)
    status, said = call("from_topk", *words, with_text=False)
    assert status == 1 and message in said and len(said.splitlines()) == 1


def test_sequences_longer_than_the_model_was_trained_on_are_refused(models, call, text):
    words = ("--text", text, "--sequence-length", 65)
    status, said = call("from_topk", models / "mixtral", *words, with_text=False)
    assert status == 1
    assert "--sequence-length 65: the model was trained on 64 at most" in said


def test_an_output_that_cannot_be_written_is_refused_before_the_work(models, call, tmp_path):
    (tmp_path / "file").write_text("")
    words = ("--output", tmp_path / "file" / "new")
    status, said = call("from_topk", models / "mixtral", *words, with_output=False)
    assert (status, said) == (
        1,
        f"from_topk.py: --output {words[1]}: cannot be written: File exists\n",
    )


def test_an_output_that_holds_something_is_left_alone(models, call, tmp_path):
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "mine").write_text("mine")
    status, said = call("from_topk", models / "mixtral")
    assert status == 1 and "is there already: name a new folder" in said
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mine"]
