"""`--use-checkpoint-args`: takes from a checkpoint every setting that was not given."""

from argparse import ArgumentParser, Namespace

from megatron.training.checkpointing import load_args_from_checkpoint

from megatron.remoe.checkpoint.settings import CONTROLLER, FUNCTION, SHAPES
from megatron.remoe.checkpoint.stored_run import StoredRun, is_own

OURS = (
    "moe_routing",
    "moe_relu_routing",
    "moe_relu_l1_reg_coeff_init",
    "moe_relu_router_thresholds",
    "moe_granularity",
)


def restore_settings(args: Namespace, given: frozenset[str], stored: StoredRun | None) -> None:
    """Fill in the settings of the run that saved the checkpoint.

    Megatron's own list first, then every setting that is compared. Megatron forces most of its list;
    here what stands on the command line stays, so that a disagreement is found and named.

    Args:
        args: Parsed, not yet validated. Changed in place; experts, k and width are set to what they
            were before `--moe-granularity`, so that it applies once.
        given: Names of the arguments that stand on the command line, from `given_names`.
        stored: The run that saved the checkpoint; None where there is none yet.

    Raises:
        ValueError: If the checkpoint holds no settings.
    """
    if stored is None:
        return
    if not vars(stored.args):
        raise ValueError(
            f"--use-checkpoint-args: {stored.folder} holds no settings: give the flags"
        )
    kept = {name: getattr(args, name) for name in given if hasattr(args, name)}
    where = "load" if is_own(args, stored.folder) else "pretrained_checkpoint"
    load_args_from_checkpoint(args, load_arg=where)
    names = [setting.name for setting in (*SHAPES, *FUNCTION, *CONTROLLER)]
    for name in (*names, *OURS):
        if hasattr(stored.args, name) and hasattr(args, name):
            setattr(args, name, getattr(stored.args, name))
    _undo_granularity(args)
    for name, value in kept.items():
        setattr(args, name, value)


def given_names(parser: ArgumentParser, flags: frozenset[str]) -> frozenset[str]:
    """The names of the arguments that these flags set."""
    actions = parser._option_string_actions  # argparse has no public way to it
    return frozenset(actions[flag].dest for flag in flags if flag in actions)


def _undo_granularity(args: Namespace) -> None:
    if args.moe_granularity == 1 or not args.num_experts:
        return
    args.num_experts //= args.moe_granularity
    args.moe_router_topk //= args.moe_granularity
    args.moe_ffn_hidden_size *= args.moe_granularity
