"""What is wrong with values of our own options, and of Megatron's where it would find out too late."""

from argparse import Namespace

from megatron.remoe.granularity import expert_width
from remoe.controller import REG_COEFF_MAX, REG_COEFF_MIN


def value_errors(args: Namespace) -> list[str]:
    """One line for each wrong value: the flag, the value, the mend.

    Args:
        args: Parsed, not yet validated by Megatron.
    """
    errors = _granularity_errors(args)
    if args.moe_relu_routing:
        return errors + _relu_errors(args)
    if args.num_experts and not 1 <= args.moe_router_topk <= args.num_experts:
        # Megatron fails only within the first step.
        errors.append(
            f"--moe-router-topk {args.moe_router_topk}: give a number from 1 to --num-experts "
            f"{args.num_experts}"
        )
    return errors


def _granularity_errors(args: Namespace) -> list[str]:
    granularity, width = args.moe_granularity, expert_width(args)
    if granularity < 1:
        return [f"--moe-granularity {granularity}: give a whole number of at least 1"]
    if granularity > 1 and not args.num_experts:
        return ["--moe-granularity: needs --num-experts"]
    if width and width % granularity:
        return [f"--moe-granularity {granularity}: does not divide the expert width {width}"]
    return []


def _relu_errors(args: Namespace) -> list[str]:
    errors, init = [], args.moe_relu_l1_reg_coeff_init
    if not args.num_experts:
        errors.append("--moe-relu-routing: needs --num-experts")
    elif not 1 <= args.moe_router_topk <= args.num_experts:
        errors.append(
            f"--moe-router-topk {args.moe_router_topk}: the target of active experts must be "
            f"between 1 and --num-experts {args.num_experts}"
        )
    if not REG_COEFF_MIN <= init <= REG_COEFF_MAX:
        errors.append(
            f"--moe-relu-l1-reg-coeff-init {init:g}: give a number from {REG_COEFF_MIN:g} to "
            f"{REG_COEFF_MAX:g} (the paper's is 1e-8)"
        )
    if not 1.0 < args.moe_relu_l1_reg_coeff_multiplier < float("inf"):
        errors.append(
            f"--moe-relu-l1-reg-coeff-multiplier {args.moe_relu_l1_reg_coeff_multiplier:g}: give a "
            "number above 1 (the paper's is 1.2)"
        )
    if args.moe_relu_router_thresholds is not None and not args.skip_train:
        errors.append(
            "--moe-relu-router-thresholds: is for evaluation, training would not see it: add "
            "--skip-train, or leave it out"
        )
    return errors
