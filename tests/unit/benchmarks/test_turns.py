"""Children run as many steps as they are told, one child at a time."""

import sys
import time

import pytest

from benchmarks.ratios import ratio, ratio_lines
from benchmarks.turns import Side, take_turns
from data_tools import REPOSITORY

CHILD = """
import itertools, sys
sys.path.insert(0, "benchmarks")
from turns import Turns

class Memory:
    def restart(self): pass
    def read(self): return 7

turns = Turns()
turns.count_memory(Memory())
turns.facts["name"] = sys.argv[1]
for number in itertools.count():
    print("noise")  # of the training, not an answer
    turns.take(lambda: number, lambda result: {"number": result})
"""


@pytest.fixture
def side(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    sides = []

    def start(name="a", code=CHILD):
        sides.append(Side(name, [sys.executable, "-c", code, name], threads=1))
        return sides[-1]

    yield start
    for one in sides:
        one.close()


def test_a_child_takes_as_many_steps_as_it_is_told_and_goes_on_where_it_stopped(side):
    child = side()
    assert [step["number"] for step in child.run(3)] == [0, 1, 2]
    assert child.facts == {"name": "a"}
    first, second = child.run(2, memory=True)
    assert (first["number"], second["number"]) == (3, 4)
    assert first["bytes"] == 0 and first["seconds"] >= 0


def test_a_child_waits_outside_its_turn(side):
    child = side()
    child.run(1)
    time.sleep(0.2)
    assert child.run(1)[0]["number"] == 1


def test_each_turn_leaves_out_its_first_step_and_the_order_rotates(side):
    sides = [side("a"), side("b")]
    seconds, told = take_turns(sides, rounds=2, steps=2)
    assert [step["number"] for step in told["a"]] == [1, 2, 4, 5]
    assert [len(turn) for turn in seconds["b"]] == [2, 2]


def test_a_child_that_ends_is_named_with_its_last_words(side):
    with pytest.raises(SystemExit, match=r"b ended:\n(.|\n)*no such thing"):
        side("b", "import sys; sys.exit('no such thing')").run(1)


def test_a_ratio_is_the_median_of_the_rounds_so_that_a_disturbed_round_does_not_count():
    quiet, disturbed = [1.0, 1.0, 9.0], [100.0, 100.0]
    middle, low, high = ratio([quiet, disturbed, [2.0]], [[2.0], [200.0], [1.0]])
    assert (middle, low, high) == (0.5, 0.5, 1.25)
    assert ratio([[3.0]], [[2.0]]) == (1.5, 1.5, 1.5)


def test_only_sides_that_ran_are_compared():
    seconds = {"a": [[1.0]], "b": [[2.0]]}
    lines = list(ratio_lines(seconds, [("a", "b"), ("a", "c")]))
    assert lines == ["a / b: 0.500 (middle half of the rounds: 0.500 to 0.500)"]
