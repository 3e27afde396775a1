"""What is advised where a run does not fit: the mildest value that does, and nothing that does not."""

from argparse import ArgumentParser

import pytest
from megatron.training.arguments import add_megatron_arguments

from megatron.remoe.arguments import add_remoe_args
from megatron.remoe.memory import advice
from megatron.remoe.memory.advice import chunks, least, mends
from megatron.remoe.memory.estimate import estimate, peak
from megatron.remoe.memory.report import GIB, USABLE, table
from megatron.remoe.memory.report import advice as advise
from memory_shapes import large_shape, make_shape

LIMIT = USABLE * 40 * GIB


def flags(shape, limit=LIMIT):
    return [mend.flags for mend in mends(shape, limit)]


def test_each_option_has_a_value_that_fits_and_the_next_milder_one_does_not():
    shape = large_shape()
    found = {mend.flags.split()[0]: mend for mend in mends(shape, LIMIT)}
    assert list(found) == [
        "--moe-relu-chunk-above",
        "--moe-relu-max-active-experts",
        "--recompute-granularity",
        "--micro-batch-size",
    ]
    assert all(mend.total <= LIMIT for mend in found.values())
    bound = found["--moe-relu-chunk-above"].shape.chunk_above
    assert 1 <= bound < 16 and peak(large_shape(chunk_above=bound + 1)).total > LIMIT
    cap = found["--moe-relu-max-active-experts"].shape.cap
    assert 1 <= cap < 16 and peak(large_shape(cap=cap + 1)).total > LIMIT
    size = found["--micro-batch-size"].shape.micro_batch
    assert size < 16 and peak(large_shape(micro_batch=2 * size)).total > LIMIT


def test_every_advised_option_is_one_of_the_command_line():
    parser = add_remoe_args(add_megatron_arguments(ArgumentParser(allow_abbrev=False)))
    advised = [
        *flags(large_shape()),
        *flags(large_shape(topk_warm_up=24, can_chunk=False)),
        advice.more_expert_parallelism(large_shape(), LIMIT * 99).flags,
    ]
    assert len(set(advised)) == 6
    for words in advised:
        parser.parse_args(words.replace(" N", " 100").split())


def test_a_topk_that_warms_up_gets_a_smaller_warm_up_and_no_option_of_relu_routing():
    shape = large_shape(topk_warm_up=24, can_chunk=False)
    assert peak(shape).total == estimate(shape, 24).total
    found = {mend.flags.split()[0]: mend for mend in mends(shape, LIMIT)}
    assert list(found) == [
        "--moe-topk-warmup-experts",
        "--recompute-granularity",
        "--micro-batch-size",
    ]
    bound = found["--moe-topk-warmup-experts"].shape.topk_warm_up
    larger = large_shape(topk_warm_up=bound + 1, can_chunk=False)
    assert 1 <= bound < 24 and peak(larger).total > LIMIT
    (line,) = advise(shape, GIB)
    assert "with --moe-topk-warmup-experts 1, full recompute and --micro-batch-size 1 " in line


def test_what_is_set_already_is_not_advised_again():
    full = large_shape(recompute="uniform", micro_batch=1, chunk_above=1, cap=1, ep=8)
    assert flags(full, 0.99 * peak(full).total) == []


def test_chunks_are_not_advised_with_options_that_refuse_them():
    assert chunks(large_shape(can_chunk=False), LIMIT) is None


def test_expert_parallelism_is_not_advised_with_a_row_budget_which_refuses_it():
    assert advice.more_expert_parallelism(large_shape(), 99 * LIMIT) is not None
    assert advice.more_expert_parallelism(large_shape(can_spread=False), 99 * LIMIT) is None


def test_the_micro_batch_divides_the_global_one():
    shape = large_shape(micro_batch=12, global_batch=12 * 8)
    assert advice.smaller_micro_batch(shape, LIMIT).shape.micro_batch in (1, 2, 3, 4, 6)


def test_more_expert_parallelism_is_advised_where_weights_fill_the_rank():
    shape = large_shape(stages=((True,) * 48,), micro_batch=1, topk=1, chunk_above=1)
    limit = 0.8 * peak(shape).total
    mend = advice.more_expert_parallelism(shape, limit)
    assert mend.flags == f"--expert-model-parallel-size {mend.shape.ep}"
    assert mend.shape.ep in (2, 4, 8) and mend.total <= limit
    assert advice.more_expert_parallelism(large_shape(ep=8), 0) is None


def test_no_advice_where_the_run_fits_and_the_least_where_nothing_helps():
    assert advise(large_shape(), 1000 * GIB) == []
    (line,) = advise(large_shape(), GIB)
    assert f"{least(large_shape())[1] / GIB:.2f} GiB are left" in line
    assert "Spread the model over more ranks" in line


def test_advice_names_needs_and_limits():
    first, *rest = advise(large_shape(), 40 * GIB)
    assert (
        first
        == f"{peak(large_shape()).total / GIB:.2f} GiB may not fit (over 90% of 40.00 GiB). Add one of:"
    )
    assert len(rest) == 4 and all(" GiB; " in line for line in rest)


def test_the_table_of_a_warm_up_names_its_two_phases():
    _, header, active, *_ = table(make_shape(topk_warm_up=6), GIB)
    assert header.split() == ["warm-up", "after", "it"]
    assert active.split()[-2:] == ["6.00", "1.00"]


@pytest.mark.parametrize("stages", [1, 2])
def test_the_table_names_the_stage_with_most_and_sums_up(stages):
    shape = make_shape(stages=((True, True),) * stages, world=stages, hidden=8000)
    title, header, *rows = table(shape, 80 * GIB)
    assert ("pipeline stage 1 of 2" in title) == (stages == 2) and title.endswith("80.00")
    assert header.split() == ["dense", "stage", "sparse", "stage"]
    figures = [[float(word) for word in row.split()[-2:]] for row in rows]
    assert figures[0] == [4, 1]
    for column in range(2):
        parts = sum(row[column] for row in figures[1:-1])
        assert parts == pytest.approx(figures[-1][column], abs=0.021)
