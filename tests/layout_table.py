"""The table of docs/layouts.md: layout by property, each cell put there by the test that passed."""

from pathlib import Path

from layouts import LAYOUTS

COLUMNS = ("loss", "lambda", "resume", "reshard", "TopK")
HEADER = """\
# One result for every layout

Written by `make layouts` from `tests/integration/test_layouts.py`; every cell is a test that `make test`
runs. Each layout starts from one checkpoint that a single process saved at step 30 (weights, optimizer,
lambda), and trains steps 31 to 50 by `pretrain_gpt.py` on the same global batches, in fp32, with gloo on
the CPU.

- **loss**: largest relative difference of a step's loss from the single process's (bound 1e-5)
- **lambda**: after each step, on each rank, against the single process's
- **resume**: steps 46 to 50 from the layout's own checkpoint of step 45 against its uninterrupted run:
  loss, gradient norm, sparsity and lambda
- **reshard**: the same steps by a single process from that checkpoint; largest difference of a loss
- **TopK**: the control: five steps of Megatron's own router and dispatchers in the same layout

The single process has Megatron's `SequentialMLP`; the row with grouped experts loads its checkpoint
and saves one for it.

Beside the table: padding masks with different numbers of valid tokens on ranks
(`test_ranks_that_share_sequences.py`); a run that changes its layout at each of nine stops, format
`torch`, asynchronous saves, and bf16, where ReLU routing strays no further than twice what TopK does
(`test_layout_paths.py`).

| layout | ranks | loss | lambda | resume | reshard | TopK |
|---|---|---|---|---|---|---|
"""


class LayoutTable:
    """Cells by layout and column."""

    def __init__(self):
        self._cells = {}

    def put(self, layout, column, text):
        """Note what a test has shown."""
        assert column in COLUMNS
        self._cells[layout.name, column] = text

    def write(self, path: Path):
        """Write the document; a cell without its test is empty."""
        rows = [[x.name, str(x.ranks), *self._row(x)] for x in LAYOUTS]
        path.write_text(HEADER + "".join(f"| {' | '.join(row)} |\n" for row in rows))

    def _row(self, layout):
        return [self._cells.get((layout.name, column), "") for column in COLUMNS]
