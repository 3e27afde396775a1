"""GPU hours against a hand computation."""

import pytest

from sweep_runs import write_sweep
from sweeping.errors import SweepError
from sweeping.estimation import cost_of, estimate_table
from sweeping.flops import model_of

PAPER = "size: 182m\ngrid: {method: [dense, moe, remoe]}\nestimate: {tflops_per_gpu: 100}\n"
# 182M, by hand, a token's forward pass: 12 layers; h = 768, keys and values of 256, f = 3072.
ATTENTION = 12 * (2 * 768 * 768 + 2 * 2 * 768 * 256 + 2 * 768 * 768 + 2 * 1024 * 768)
FFN = 12 * 3 * 2 * 768 * 3072
LOGITS = 2 * 768 * 51200
TOKENS = 512 * 1024


def run_of(tmp_path, method):
    return next(
        run for run in write_sweep(tmp_path, PAPER).runs if run.settings["method"] == method
    )


def test_a_dense_run_is_three_passes_of_all_its_tokens(tmp_path):
    run = run_of(tmp_path, "dense")
    cost = cost_of(run, model_of(run), 110, 0.5)
    assert cost.flops == pytest.approx(60_000 * TOKENS * 3 * (ATTENTION + FFN + LOGITS))
    assert cost.dense_flops == 0


def test_topk_recomputes_its_experts_once_as_the_recipe_does(tmp_path):
    run = run_of(tmp_path, "topk")
    cost = cost_of(run, model_of(run), 110, 0.5)
    step = TOKENS * (3 * (ATTENTION + LOGITS) + 4 * FFN)
    assert cost.flops == pytest.approx(60_000 * step)


def test_remoe_pays_its_near_dense_steps_too(tmp_path):
    topk, relu = (run_of(tmp_path, method) for method in ("topk", "relu"))
    extra = 110 * TOKENS * 4 * FFN * (0.5 * 8 - 1)  # 4 of 8 experts active, where 1 is later
    found = cost_of(relu, model_of(relu), 110, 0.5)
    assert found.dense_flops == pytest.approx(extra)
    assert found.flops == pytest.approx(cost_of(topk, model_of(topk), 110, 0.5).flops + extra)


def test_the_table_adds_up_the_gpu_hours_of_all_runs(tmp_path):
    sweep = write_sweep(tmp_path, PAPER.replace("remoe]", "remoe], seed: [1, 2]"))
    table = estimate_table(sweep)
    dense = 60_000 * TOKENS * 3 * (ATTENTION + FFN + LOGITS) / 100e12 / 3600
    assert f"| dense_x1 | 2 | 2.88e+19 | {dense:.1f} | 0.00 | 8 | {dense / 8:.1f} |" in table
    topk = 60_000 * TOKENS * (3 * (ATTENTION + LOGITS) + 4 * FFN) / 100e12 / 3600
    relu = topk + 110 * TOKENS * 4 * FFN * 3 / 100e12 / 3600
    total = 2 * (dense + topk + relu)
    assert f"6 runs, {total:,.0f} GPU hours in all, if each GPU sustains 100 TFLOP/s" in table


def test_more_experts_cost_more_in_the_near_dense_stages_alone(tmp_path):
    text = "size: 182m\ngrid: {method: [moe, remoe], E: [8, 64]}\n"
    few_topk, many_topk, few, many = (
        cost_of(run, model_of(run), 110, 0.5) for run in write_sweep(tmp_path, text).runs
    )
    assert few_topk.flops == many_topk.flops
    assert many.flops - few.flops == pytest.approx(110 * TOKENS * 4 * FFN * 0.5 * (64 - 8))


@pytest.mark.parametrize(
    ("estimate", "said"),
    [
        ("{}", "tflops_per_gpu is missing"),
        ("{tflops_per_gpu: fast}", "tflops_per_gpu must be a positive number, got 'fast'"),
        ("{tflops_per_gpu: 100, dense_share: 8}", "dense_share is a share, got 8"),
        ("{tflops: 100}", "unknown key 'tflops'"),
    ],
)
def test_missing_or_wrong_assumptions_are_refused(tmp_path, estimate, said):
    sweep = write_sweep(tmp_path, f"size: 182m\ngrid: {{method: dense}}\nestimate: {estimate}\n")
    with pytest.raises(SweepError) as refused:
        estimate_table(sweep)
    assert said in str(refused.value)


def test_settings_that_the_recipe_refuses_are_told_by_run(tmp_path):
    sweep = write_sweep(
        tmp_path, "size: 182m\ngrid: {method: moe, G: 7}\nestimate: {tflops_per_gpu: 100}\n"
    )
    with pytest.raises(SweepError, match=r"topk_E8_k1_G7_s1: .*does not divide the FFN width"):
        estimate_table(sweep)
