"""`--moe-routing`: the options that make each routing method what it is."""

import warnings
from argparse import Namespace
from dataclasses import dataclass

from megatron.remoe.baselines.conflicts import OF_ONE, own_router_errors


@dataclass(frozen=True)
class Option:
    """One option that a method sets where the user did not.

    Attributes:
        flag: As the user writes it.
        name: Of the argument.
        value: What the method sets.
        is_free: Whether the user may choose any other value; else it would be another method.
        also: Other values that the user may choose.
    """

    flag: str
    name: str
    value: object
    is_free: bool = False
    also: tuple[object, ...] = ()


def _balancing(kind: str, coeff: float = 0.0, also: tuple[str, ...] = ()) -> tuple[Option, ...]:
    name = "moe_router_load_balancing_type"
    return (
        Option("--moe-router-load-balancing-type", name, kind, also=also),
        Option("--moe-aux-loss-coeff", "moe_aux_loss_coeff", coeff, is_free=coeff > 0),
    )


def _relu(is_on: bool) -> Option:
    return Option("--moe-relu-routing", "moe_relu_routing", is_on)


def _expert_bias(is_on: bool) -> Option:
    return Option("--moe-router-enable-expert-bias", "moe_router_enable_expert_bias", is_on)


def _scores(function: str) -> Option:
    return Option("--moe-router-score-function", "moe_router_score_function", function)


# Gates are the softmax over all experts: the paper's baseline. Megatron refuses k = 1 without.
PRE_SOFTMAX = Option("--moe-router-pre-softmax", "moe_router_pre_softmax", True)
SOFTMAX = (_relu(False), _expert_bias(False), _scores("softmax"), PRE_SOFTMAX)
OTHER_LOSSES = ("seq_aux_loss", "global_aux_loss")
AUX_LOSS = 0.01  # of the paper's TopK baseline
BIAS_RATE = Option(
    "--moe-router-bias-update-rate", "moe_router_bias_update_rate", 1e-3, is_free=True
)

METHODS: dict[str, tuple[Option, ...]] = {
    "topk": (*SOFTMAX, *_balancing("aux_loss", AUX_LOSS, OTHER_LOSSES)),
    "topk-unbalanced": (*SOFTMAX, *_balancing("none")),
    "topk-bias": (
        _relu(False),
        _expert_bias(True),
        _scores("sigmoid"),
        BIAS_RATE,
        *_balancing("none"),
    ),
    "topk-warmup": (*SOFTMAX, *_balancing("aux_loss", AUX_LOSS, OTHER_LOSSES)),
    "expert-choice": (*SOFTMAX, *_balancing("none")),
    "hash": (*SOFTMAX, *_balancing("none")),
    "sparsemixer": (*SOFTMAX, *_balancing("aux_loss", AUX_LOSS, OTHER_LOSSES)),
    "relu": (_relu(True),),
    "relu-l1": (
        _relu(True),
        Option("--moe-relu-load-balancing", "moe_relu_load_balancing", "none"),
    ),
}


def apply_method(args: Namespace, given: frozenset[str]) -> None:
    """Set the options that make the method of `--moe-routing`; nothing without it.

    Args:
        args: Parsed, with the settings of a checkpoint in it where it is to give them, not yet
            validated by Megatron. Changed in place.
        given: Flags that stand on the command line.

    Raises:
        ValueError: One message that lists every option that contradicts the method.
    """
    method = args.moe_routing
    if method is None:
        for flag in sorted(OF_ONE.keys() & given):
            warnings.warn(
                f"{flag} has no effect without --moe-routing {OF_ONE[flag]}", stacklevel=2
            )
        return
    errors = _model_errors(args) + own_router_errors(args, given)
    for option in METHODS[method]:
        value = _alone(getattr(args, option.name))
        if option.flag not in given:
            setattr(args, option.name, option.value)
        elif not option.is_free and value not in (option.value, *option.also):
            errors.append(f"{_written(option, value)}: {_mend(method, option)}")
    if errors:
        lines = "\n  ".join(errors)
        raise ValueError(f"these options do not go with --moe-routing {method}:\n  {lines}")


def _model_errors(args: Namespace) -> list[str]:
    if not args.num_experts:
        return [f"--moe-routing {args.moe_routing}: needs --num-experts"]
    num_experts = args.num_experts * max(args.moe_granularity, 1)
    if num_experts == 1 and not args.moe_routing.startswith("relu"):
        return ["--num-experts 1: leaves nothing to choose: give at least 2"]
    return []


def _alone(value: object) -> object:
    """The one value of an option that takes several."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _written(option: Option, value: object) -> str:
    return option.flag if isinstance(value, bool) else f"{option.flag} {value}"


def _mend(method: str, option: Option) -> str:
    meant = f"{method} is without it" if option.value is False else f"{method} has {option.value}"
    return f"{meant}: leave it out, or leave out --moe-routing and give Megatron's own options"
