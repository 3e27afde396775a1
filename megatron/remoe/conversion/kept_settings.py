"""What of a Megatron run config.json has no word for, kept beside the weights for the way back."""

from argparse import Namespace

from megatron.remoe.checkpoint.settings import has_experts, routes_by_relu, routes_by_topk
from megatron.remoe.conversion.architecture import Architecture, ConversionError

# By name of the argument: for which models, and of which type it must be to be taken back.
KEPT_ARGS = {
    "seq_length": (lambda args: True, int),
    "moe_z_loss_coeff": (has_experts, float),
    "moe_aux_loss_coeff": (routes_by_topk, float),
    "moe_router_load_balancing_type": (routes_by_topk, str),
    "moe_router_dtype": (routes_by_topk, str),
    "moe_relu_l1_reg_coeff_warmup_multiplier": (routes_by_relu, float),
}


def kept_settings(args: Namespace, model: Architecture) -> dict:
    """For `megatron/settings.json`.

    Args:
        args: Stored in the checkpoint.
        model: What they describe.
    """
    found = {
        name: getattr(args, name, None)
        for name, (matters, kind) in KEPT_ARGS.items()
        if matters(args) and isinstance(getattr(args, name, None), kind)
    }
    return {
        "padded_vocab_size": model.padded_vocab_size,
        # As one process must pad to have the same rows.
        "make_vocab_size_divisible_by": args.make_vocab_size_divisible_by
        * args.tensor_model_parallel_size,
        "transformer_impl": args.transformer_impl,
        "args": found,
    }


def kept_args(kept: dict) -> dict:
    """The arguments of `megatron/settings.json` that are known.

    Raises:
        ConversionError: If one is of another type.
    """
    args = kept.get("args", {})
    if not isinstance(args, dict):
        raise ConversionError("megatron/settings.json: args is not a dictionary")
    for name, value in args.items():
        if name in KEPT_ARGS and not isinstance(value, KEPT_ARGS[name][1]):
            raise ConversionError(f"megatron/settings.json: {name} is {value!r}")
    return {name: value for name, value in args.items() if name in KEPT_ARGS}


def kept_number(kept: dict, name: str) -> int | None:
    """A whole number of at least 1 of `megatron/settings.json`, or None where it is not there.

    Raises:
        ConversionError: If it is anything else.
    """
    value = kept.get(name)
    if value is not None and not (isinstance(value, int) and value > 0):
        raise ConversionError(f"megatron/settings.json: {name} is {value!r}: give a whole number")
    return value
