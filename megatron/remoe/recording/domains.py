"""The names of what training and evaluation data come from."""

from argparse import Namespace
from pathlib import PurePath

from megatron.training.utils import get_blend_and_blend_per_split

PHASES = ("train", "valid", "test")


def domain_names(args: Namespace, phase: str) -> list[str]:
    """Names of a phase's data sets, in the order of their indices in the blend.

    Args:
        args: Validated.
        phase: One of `PHASES`.

    Returns:
        `--validation-set-names` where they are given and meant; else of each data prefix its last part
        without ``_text_document``, with its folder where two would be alike; ["mock"] for mock data.
    """
    if phase == "valid" and args.multiple_validation_sets and args.validation_set_names:
        return list(args.validation_set_names)
    blend, per_split = get_blend_and_blend_per_split(args)
    if blend is None and per_split is not None:
        blend = per_split[PHASES.index(phase)]
    if blend is None:
        return ["mock"]
    prefixes = [PurePath(prefix.removesuffix("_text_document")) for prefix in blend[0]]
    names = [prefix.name for prefix in prefixes]
    if len(set(names)) == len(names):
        return names
    return ["/".join(prefix.parts[-2:]) for prefix in prefixes]
