"""Whole runs with a budget of rows, in each rank of a fresh world."""

from unittest import mock

from ranks_pretrain import run_pretrain


def run_with_budget(flags, always):
    """Run the command; return its steps, and of each forward-backward whether it had a budget.

    Args:
        flags: Of the command.
        always: Try the budget in each step, also where the last one would not have kept to it.
    """
    from megatron.remoe.row_budget import RowBudgetRunner

    run, armed = RowBudgetRunner._run, []

    def note(self, budgets, kwargs, is_armed=False):
        armed.append(is_armed)
        return run(self, budgets, kwargs, is_armed)

    is_static = property(lambda self: True, lambda self, value: None)
    with mock.patch.object(RowBudgetRunner, "_run", note):
        if not always:
            return run_pretrain(flags), armed
        with mock.patch.object(RowBudgetRunner, "is_static", is_static, create=True):
            return run_pretrain(flags), armed
