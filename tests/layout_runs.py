"""Runs for the tests of layouts: those of one process, which are the truth, and how to compare."""

import math

import numpy as np

from commands import TRACKER
from layouts import DISTRIBUTED, MODELS, RELU, command
from ranks_pretrain import run_pretrain

START, SAVED, END = 30, 45, 50
FEW = 5  # steps of the control
END_OF_DOCUMENT = 127  # of NullTokenizer with --vocab-size 127
TOLERANCE = 1e-5  # of a loss, relative, in fp32


def deviation(steps, truth, name="loss"):
    """Largest relative difference of a step's figure; `steps` are those of the last rank."""
    pairs = list(zip(steps, truth, strict=True))
    assert all(ours.iteration == theirs.iteration for ours, theirs in pairs)
    differences = [abs(getattr(a, name) / getattr(b, name) - 1) for a, b in pairs]
    assert all(map(math.isfinite, differences))
    return max(differences)


class Runs:
    """Runs of the command in fresh worlds, and those of one process, each made once.

    Args:
        launcher: `harness.RankLauncher`.
        folder: For the data, and for what one process saves.
    """

    def __init__(self, launcher, folder):
        self.launcher, self.folder, self._steps = launcher, folder, {}
        self._data = write_documents(folder / "documents")

    def train(self, ranks, *flags, data=True):
        """Run the command on so many ranks; return the steps by rank.

        Args:
            ranks: Processes.
            flags: Besides `SHAPE`.
            data: Whether to give data; else the flags do.
        """
        return self.launcher.ranks(ranks).run(
            run_pretrain, self.words(*flags, data=data), timeout=300
        )

    def words(self, *flags, data=True):
        """The words of the command."""
        given = f"--data-path {self._data} --split 100,0,0" if data else ""
        return command(given, f"--data-cache-path {self.folder}", *flags)

    def start(self, model, distributed=False, routing=RELU):
        """Folder of the checkpoint from which the layouts of a model start."""
        folder = self.folder / f"{model} {distributed} {routing == RELU}".replace(" ", "_")
        if not (folder / TRACKER).exists():
            save = f"--save {folder} --save-interval {START} --exit-interval {START}"
            self.train(1, routing, MODELS[model], save, DISTRIBUTED if distributed else "")
        return folder

    def steps(self, model, distributed=False, routing=RELU, flags=""):
        """Steps after the start."""
        key = (model, distributed, routing, flags)
        if key not in self._steps:
            load = f"--load {self.start(model, distributed, routing)}"
            kind = DISTRIBUTED if distributed else ""
            (steps,) = self.train(1, routing, MODELS[model], load, kind, flags)
            self._steps[key] = steps
        return self._steps[key]


def write_documents(prefix):
    """Indexed data of a hundred documents that count in steps of 1 to 3; returns its prefix.

    From mere noise nothing is learnt, and the regulariser alone would switch all experts off.
    """
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    random = np.random.default_rng(0)
    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=np.uint16)
    for length in random.integers(20, 200, size=100):
        start, step = random.integers(0, END_OF_DOCUMENT), random.integers(1, 4)
        tokens = [*((start + step * np.arange(length)) % END_OF_DOCUMENT), END_OF_DOCUMENT]
        builder.add_document(np.array(tokens), [len(tokens)])
    builder.finalize(f"{prefix}.idx")
    return prefix
