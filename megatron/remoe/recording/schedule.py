"""Which forward passes are recorded."""

from argparse import Namespace


def is_recorded(args: Namespace, is_training: bool) -> bool:
    """Whether the routers' decisions of this forward pass go into a record.

    Every evaluation, and every N-th training step. Read from the arguments alone, so every rank says
    the same without asking.

    Args:
        args: Megatron's; `curr_iteration` are the steps before this one.
        is_training: Of the model.
    """
    if getattr(args, "record_routing", None) is None:
        return False
    return not is_training or (args.curr_iteration + 1) % args.record_routing_interval == 0
