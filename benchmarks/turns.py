"""Child processes that run in turns, so that a disturbance meets all sides of a comparison."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any


class Turns:
    """The child's end: runs as many steps as it is told, reports on them, and waits.

    Takes standard output for its answers: what is printed from now on goes to standard error.

    Attributes:
        facts: What to tell of this side with each answer.
    """

    def __init__(self):
        self.facts: dict = {}
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._order: dict = {}
        self._left, self._done = 0, []

    def count_memory(self, memory) -> None:
        """Tell peaks beyond what is resident now.

        Args:
            memory: A `PeakMemory`.
        """
        memory.restart()
        self._memory, self._before = memory, memory.read()

    def take(self, step: Callable[[], Any], describe: Callable[[Any], dict]) -> Any:
        """Wait for the turn, run the step and time it; ends the process where there is none to come.

        Args:
            step: What to run. Must not return before the device is done.
            describe: What to tell of the step's result, beside seconds and bytes; not timed.
        """
        if not self._left:
            self._wait()
        if self._order.get("memory"):  # not in timed steps: pages given back must be mapped again
            self._memory.restart()
        begin = time.perf_counter()
        result = step()
        seconds = time.perf_counter() - begin
        told = {"seconds": seconds, **describe(result)}
        if self._order.get("memory"):
            told["bytes"] = self._memory.read() - self._before
        self._done.append(told)
        self._left -= 1
        if not self._left:
            print(json.dumps({"facts": self.facts, "steps": self._done}), file=self._answers)
            self._answers.flush()
            self._done = []
        return result

    def _wait(self):
        line = sys.stdin.readline()
        if not line:
            os._exit(0)  # no end of a training run, with its checkpoints and groups, is wanted
        self._order = json.loads(line)
        self._left = self._order["steps"]


class Side:
    """The parent's end of one child.

    Args:
        name: Of the side.
        command: Its command line.
        threads: Of torch.
    """

    def __init__(self, name: str, command: list[str], threads: int):
        self.name = name
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  as long as the child
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )
        self.facts: dict = {}

    def run(self, steps: int, memory: bool = False) -> list[dict]:
        """Let it run steps while all others wait; what it tells of each."""
        answer = ""
        try:
            self._process.stdin.write(json.dumps({"steps": steps, "memory": memory}) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            pass
        if not answer:
            self._log.seek(0)
            sys.exit(f"{self.name} ended:\n{self._log.read()[-3000:]}")
        told = json.loads(answer)
        self.facts = told["facts"]
        return told["steps"]

    def close(self):
        """Let it end."""
        self._process.stdin.close()
        self._process.wait(timeout=60)


def take_turns(
    sides: list[Side], rounds: int, steps: int
) -> tuple[dict[str, list[list[float]]], dict[str, list[dict]]]:
    """Seconds by side, round and step, and all that was told.

    Each turn begins with one step more, which fills the caches and is left out.
    """
    seconds = {side.name: [] for side in sides}
    told = {side.name: [] for side in sides}
    for number in range(rounds):
        for side in sides[number % len(sides) :] + sides[: number % len(sides)]:
            turn = side.run(steps + 1)[1:]
            seconds[side.name].append([step["seconds"] for step in turn])
            told[side.name] += turn
    return seconds, told
