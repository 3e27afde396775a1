"""The harness itself: a rank's failure is a test's failure, and nothing hangs."""

import os
import time

import pytest
import torch

from harness import RankError


def rank_sum():
    total = torch.tensor([torch.distributed.get_rank() + 1.0])
    torch.distributed.all_reduce(total)
    return total.item()


def fail_on_rank_1():
    if torch.distributed.get_rank() == 1:
        raise ZeroDivisionError("of rank one")
    torch.distributed.barrier()  # waits for a rank that will not come


def sleep_on_rank_0(seconds):
    if torch.distributed.get_rank() == 0:
        time.sleep(seconds)


def die_on_rank_0():
    if torch.distributed.get_rank() == 0:
        os._exit(3)


@pytest.fixture(scope="module")
def pair(launcher):
    return launcher.ranks(2)


def test_ranks_share_a_world_and_answer_by_rank(pair):
    assert pair.run(rank_sum) == [3.0, 3.0]


@pytest.mark.parametrize(
    ("function", "arguments", "timeout", "message"),
    [
        (fail_on_rank_1, (), 60, "ZeroDivisionError: of rank one"),
        (sleep_on_rank_0, (600,), 5, r"(?s)rank 0: did not answer in time.*in sleep_on_rank_0"),
        (die_on_rank_0, (), 60, "rank 0: ended with exit code 3"),
    ],
    ids=["exception", "hang, with its stack", "death"],
)
def test_a_failing_rank_fails_the_call_with_its_reason(pair, function, arguments, timeout, message):
    pair.run(rank_sum)
    start = time.monotonic()
    with pytest.raises(RankError, match=message):
        pair.run(function, *arguments, timeout=timeout)
    assert time.monotonic() - start < 30, "the others must not be waited for"
