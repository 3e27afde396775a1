"""Which of Megatron's options do not go with the routers here."""

from argparse import Namespace

from megatron.remoe.checkpoint.settings import OWN_ROUTERS
from megatron.remoe.conflicts import REFUSED

# What the methods themselves set; the rest of what ReLU routing refuses counts on Megatron's own choice.
OF_METHODS = (
    "--moe-router-load-balancing-type",
    "--moe-aux-loss-coeff",
    "--moe-router-enable-expert-bias",
)
# Flags of one method alone.
OF_ONE = {
    "--moe-topk-warmup-experts": "topk-warmup",
    "--moe-topk-warmup-steps": "topk-warmup",
    "--moe-sparsemixer-jitter": "sparsemixer",
    "--moe-hash-seed": "hash",
}


def own_router_errors(args: Namespace, given: frozenset[str]) -> list[str]:
    """A line for each option that does not go with the method, with the mend.

    Args:
        args: Parsed, with `moe_routing`.
        given: Flags that stand on the command line.
    """
    method = args.moe_routing
    errors = [
        f"{flag}: is of --moe-routing {owner}: leave it out"
        for flag, owner in OF_ONE.items()
        if flag in given and owner != method
    ]
    if method not in OWN_ROUTERS:
        return errors
    errors += [
        f"{conflict.flag}: has not been made to work with this router: leave it out"
        for conflict in REFUSED
        if conflict.flag not in OF_METHODS and conflict.applies(args, given)
    ]
    if args.overlap_moe_expert_parallel_comm:
        errors.append(
            "--overlap-moe-expert-parallel-comm: has not been made to work with this router: leave "
            "it out"
        )
    if method == "hash" and _recomputes_router(args):
        errors.append(
            "--recompute-granularity: would route again in the backward pass, where token ids are not "
            "known: leave it out, or recompute other --recompute-modules than moe and mlp"
        )
    return errors


def _recomputes_router(args: Namespace) -> bool:
    if args.recompute_granularity == "selective":
        return bool({"moe", "mlp"} & set(args.recompute_modules or ()))
    return args.recompute_granularity == "full" or bool(args.moe_layer_recompute)
