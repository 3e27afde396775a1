"""A sweep's YAML becomes its list of runs; what cannot be read is refused by file and key."""

import pytest

from launch_scripts import REPO
from sweep_runs import write_sweep
from sweeping.errors import SweepError
from sweeping.runs import command_of
from sweeping.sweep_file import read_sweep

FAMILY = "size: nano\nsettings: {steps: 600, lambda_0: 1e-5, alpha: 1.05}\n"


def names(sweep):
    return [run.name for run in sweep.runs]


def test_a_grid_is_the_cross_product_and_its_last_key_varies_first(tmp_path):
    sweep = write_sweep(
        tmp_path, "size: nano\ngrid: {method: [moe, remoe], E: [4, 8], seed: [1, 2]}"
    )
    assert names(sweep) == [
        f"{method}_E{experts}_k1_G1_s{seed}"
        for method in ("topk", "relu")
        for experts in (4, 8)
        for seed in (1, 2)
    ]


def test_several_grids_and_listed_runs_follow_each_other(tmp_path):
    text = (
        "size: nano\ngrids:\n- {method: moe}\n- {method: remoe, k: 2}\n"
        "runs:\n- {method: dense, expansion: 8}"
    )
    assert names(write_sweep(tmp_path, text)) == [
        "topk_E8_k1_G1_s1",
        "relu_E8_k2_G1_s1",
        "dense_x8_s1",
    ]


def test_a_run_that_two_grids_name_stands_once(tmp_path):
    text = "size: nano\ngrids:\n- {method: moe, E: [4, 8]}\n- {method: [moe, remoe], G: [1, 2]}"
    found = names(write_sweep(tmp_path, text))
    assert len(found) == len(set(found)) == 5


def test_a_dense_model_is_crossed_with_no_setting_of_experts(tmp_path):
    text = "size: nano\ngrid: {method: [dense, remoe], E: [4, 8], lambda_0: [1e-8, 1e-4]}"
    assert names(write_sweep(tmp_path, text)).count("dense_x1_s1") == 1
    assert len(write_sweep(tmp_path, text).runs) == 5


def test_a_dense_model_gets_no_flag_of_routed_ones(tmp_path):
    text = (
        "size: nano\nsettings: {--moe-z-loss-coeff: 1e-3, --weight-decay: 0.1}\n"
        'recording: {--record-routing: "{run}/routing"}\ngrid: {method: [dense, moe]}\n'
    )
    dense, routed = (run.environment()["EXTRA_ARGS"] for run in write_sweep(tmp_path, text).runs)
    assert dense == "--weight-decay 0.1"
    assert routed == "--moe-z-loss-coeff 1e-3 --weight-decay 0.1 --record-routing {run}/routing"


def test_the_folder_of_a_run_can_stand_in_its_settings(tmp_path):
    text = 'size: nano\nrecording: {--record-routing: "{run}/routing"}\ngrid: {method: moe}\n'
    sweep = write_sweep(tmp_path, text)
    words = command_of(sweep.runs[0], tmp_path / "runs", sweep.family)
    assert f"EXTRA_ARGS=--record-routing {tmp_path}/runs/try/topk_E8_k1_G1_s1/routing" in words


def test_lambda_and_alpha_make_no_second_run_of_a_router_without_them(tmp_path):
    text = "size: nano\ngrid: {method: [moe, remoe], alpha: [1.1, 1.2]}"
    assert len(write_sweep(tmp_path, text).runs) == 3


def test_the_words_of_the_scripts_and_of_the_flag_are_one_method(tmp_path):
    text = "size: nano\ngrid: {method: [moe, topk, remoe, relu]}"
    sweep = write_sweep(tmp_path, text)
    assert names(sweep) == ["topk_E8_k1_G1_s1", "relu_E8_k1_G1_s1"]
    assert [run.environment()["METHOD"] for run in sweep.runs] == ["moe", "remoe"]


def test_two_sweeps_of_a_family_name_the_same_run_alike(tmp_path):
    (tmp_path / "family.yaml").write_text(FAMILY)
    shared = "family: family.yaml\n"
    first = write_sweep(tmp_path, shared + "grid: {method: remoe, E: [4, 8]}", "first.yaml")
    other = write_sweep(
        tmp_path, shared + "grid: {method: remoe, alpha: [1.05, 1.2]}", "other.yaml"
    )
    assert names(first) == ["relu_E4_k1_G1_s1", "relu_E8_k1_G1_s1"]
    assert names(other) == ["relu_E8_k1_G1_s1", "relu_E8_k1_G1_alpha1.2_s1"]
    assert first.family == other.family == "family"
    assert first.runs[1].fingerprint() == other.runs[0].fingerprint()


def test_a_setting_that_differs_from_the_familys_is_in_the_name(tmp_path):
    (tmp_path / "family.yaml").write_text(FAMILY)
    text = (
        "family: family.yaml\nsettings: {steps: 400}\n"
        "runs: [{method: relu, --moe-relu-load-balancing: none, TP: 2, lambda_0: 0.0001, seed: 3}]"
    )
    assert names(write_sweep(tmp_path, text)) == [
        "relu_E8_k1_G1_moe-relu-load-balancing-none_TP2_lambda1e-4_steps400_s3"
    ]


def test_a_number_has_one_name_however_it_is_written(tmp_path):
    text = "size: nano\ngrid: {method: remoe, lambda_0: [1e-4, 1.0e-4, 0.0001]}"
    assert len(write_sweep(tmp_path, text).runs) == 1


def test_the_size_may_be_crossed_too(tmp_path):
    text = "size: 182m\ngrid: {size: [182m, 469m], method: remoe}"
    sweep = write_sweep(tmp_path, text)
    assert names(sweep) == ["relu_E8_k1_G1_s1", "469m_relu_E8_k1_G1_s1"]
    assert [run.script.name for run in sweep.runs] == [
        "train_llama_182m_remoe.sh",
        "train_llama_469m_remoe.sh",
    ]


def test_what_is_recorded_is_no_part_of_name_or_fingerprint(tmp_path):
    grid = "size: nano\ngrid: {method: remoe}\n"
    plain = write_sweep(tmp_path, grid).runs[0]
    recorded = write_sweep(
        tmp_path, grid + "recording: {save_interval: 5, --log-params-norm: true}"
    ).runs[0]
    assert (plain.name, plain.fingerprint()) == (recorded.name, recorded.fingerprint())
    assert recorded.environment()["SAVE_INTERVAL"] == "5"
    assert recorded.environment()["EXTRA_ARGS"] == "--log-params-norm"


def test_a_baseline_is_found_with_the_runs_other_settings(tmp_path):
    text = "size: nano\nbaseline: {method: moe}\ngrid: {method: [dense, moe, remoe], E: [4, 8]}"
    sweep = write_sweep(tmp_path, text)
    assert {run.configuration: sweep.baseline_of(run) for run in sweep.runs} == {
        "dense_x1": "topk_E8_k1_G1",
        "topk_E4_k1_G1": "topk_E4_k1_G1",
        "topk_E8_k1_G1": "topk_E8_k1_G1",
        "relu_E4_k1_G1": "topk_E4_k1_G1",
        "relu_E8_k1_G1": "topk_E8_k1_G1",
    }


GRID = "grid: {method: moe}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("size: nano\ncolour: red\n" + GRID, "unknown key 'colour'"),
        (
            "size: huge\n" + GRID,
            "size must be one of nano, tiny, small, 182m, 469m, 978m, got 'huge'",
        ),
        (GRID, "grid: a run has no size"),
        ("size: nano\ngrid: {}\n", "grid is empty"),
        ("size: nano\ngrid: {method: []}\n", "grid.method is empty"),
        ("size: nano\ngrid: {E: 4}\n", "grid: a run has no method"),
        ("size: nano\ngrids: []\n", "must name at least one run"),
        ("size: nano\ngrids: {method: moe}\n", "grids must be a list"),
        ("size: nano\ngrid: [moe]\n", "grid must be a mapping"),
        ("size: nano\nruns: moe\n", "runs must be a list"),
        ("size: nano\ngrid: {method: mixtral}\n", "grid: unknown method 'mixtral'"),
        (
            "size: nano\ngrid: {method: moe, E: eight}\n",
            "grid: E must be a positive integer, got 'eight'",
        ),
        ("size: nano\ngrid: {method: moe, E: 0}\n", "grid: E must be a positive integer, got 0"),
        (
            "size: nano\ngrid: {method: moe, seed: 1.5}\n",
            "seed must be a positive integer, got 1.5",
        ),
        ("size: nano\ngrid: {method: moe, E: true}\n", "E must be a word or a number, got True"),
        ("size: nano\ngrid: {method: remoe, alpha: fast}\n", "alpha must be a number, got 'fast'"),
        ("size: nano\ngrid: {method: moe, experts: 4}\n", "grid: unknown setting 'experts'"),
        (
            "size: nano\ngrid: {method: moe, NUM_EXPERTS: 4}\n",
            "the sweep sets NUM_EXPERTS itself; write 'E'",
        ),
        ("size: nano\ngrid: {method: moe, NO_SUCH: 4}\n", "unknown setting 'NO_SUCH'"),
        ("size: nano\nruns: [{method: moe, E: [4, 8]}]\n", "runs[0].E is a list"),
        (
            "size: nano\nsettings: {--flag: false}\n" + GRID,
            "settings: --flag is false; leave it out",
        ),
        ("size: 182m\ngrid: {method: hash}\n", "size 182m has no recipe for hash"),
        ("size: nano\nbaseline: {method: dense}\n" + GRID, "baseline: no run of the sweep has"),
        (
            "size: nano\nbaseline: {method: moe, seed: 1}\ngrid: {method: [moe, remoe]}\n",
            "baseline: seed: each seed is compared with its own: leave it out",
        ),
        ("family: none.yaml\n" + GRID, "family none.yaml: No such file"),
        ("family: [a]\n" + GRID, "family must be a path"),
        ("size: nano\ngrid: {method: moe\n", "no YAML"),
        ("just words\n", "the file must be a mapping"),
        ("words " * 99, "the file must be a mapping of names to values, got 'words"),
        ("size: nano\n" + GRID + GRID, "line 2: grid stands twice"),
        ("size: nano\ngrid: {method: moe, method: remoe}\n", "line 2: method stands twice"),
        ("size: nano\nrecording: {seed: 4}\n" + GRID, "recording: seed may change what a run"),
        ("size: nano\nrecording: {--lr: 4}\n" + GRID, "recording: --lr may change what a run"),
        ("size: nano\nrecording: {method: dense}\n" + GRID, "recording: method may change"),
        ("size: nano\nsettings: {lr: .nan}\n" + GRID, "lr must be a number of at least 0, got nan"),
        ("size: nano\nsettings: {lr: -1}\n" + GRID, "lr must be a number of at least 0, got -1"),
        ("size: nano\nsettings: {--x: .inf}\n" + GRID, "--x must be a number of at least 0"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_in_one_line_with_its_name(tmp_path, text, said):
    with pytest.raises(SweepError) as refused:
        write_sweep(tmp_path, text)
    message = str(refused.value)
    assert message.startswith(f"{tmp_path / 'try.yaml'}: ") and said in message
    assert "\n" not in message and len(message) - len(str(tmp_path)) < 300


def test_anchors_and_merged_keys_are_no_keys_that_stand_twice(tmp_path):
    text = "size: nano\nruns: [&a {method: moe, E: 4}, &b {<<: *a, E: 8}, {<<: [*b, *a], seed: 2}]"
    assert names(write_sweep(tmp_path, text)) == [
        "topk_E4_k1_G1_s1",
        "topk_E8_k1_G1_s1",
        "topk_E8_k1_G1_s2",
    ]


def test_a_flag_may_have_a_negative_number(tmp_path):
    (run,) = write_sweep(tmp_path, "size: nano\nruns: [{method: moe, --x: -1.5}]").runs
    assert run.settings["--x"] == "-1.5"


def test_a_name_that_the_recipes_would_cut_in_two_is_refused(tmp_path):
    with pytest.raises(SweepError, match="no spaces in a path: rename 'my try'"):
        write_sweep(tmp_path, "size: nano\n" + GRID, name="my try.yaml")


@pytest.mark.parametrize(
    "file",
    sorted([*REPO.glob("experiments/*/sweep.yaml"), *REPO.glob("scripts/sweeps/paper_*.yaml")]),
)
def test_the_sweeps_of_the_repository_can_be_read(file):
    sweep = read_sweep(file)
    assert len(sweep.runs) == len(set(names(sweep))) > 3
