"""Command lines for the tests of arguments, through Megatron's own parser and ours."""

import argparse
import functools
import warnings

MODEL = (
    "--num-layers 2 --hidden-size 64 --num-attention-heads 4 --seq-length 64 "
    "--max-position-embeddings 64 --micro-batch-size 2 --global-batch-size 4 --train-iters 10 "
    "--lr 1e-3 --eval-interval 10 --mock-data --tokenizer-type NullTokenizer --vocab-size 512"
).split()
MOE = ["--num-experts", "8", "--moe-router-topk", "2"]
REMOE = [*MODEL, *MOE, "--moe-relu-routing"]


@functools.cache
def _parser():
    from megatron.training.arguments import add_megatron_arguments

    from megatron.remoe.arguments import add_remoe_args

    parser = argparse.ArgumentParser(allow_abbrev=False, exit_on_error=False)
    return add_remoe_args(add_megatron_arguments(parser))


def parse(words):
    """Parsed, not yet validated arguments, and the flags that were given."""
    from megatron.remoe.arguments import given_flags

    args = _parser().parse_args(words)
    args.rank = args.world_size = 0
    return args, given_flags(words)


def complaints(words):
    """What `check_conflicts` says of a command line: its error or None, and its warnings."""
    from megatron.remoe.conflicts import check_conflicts

    args, given = parse(words)
    error = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            check_conflicts(args, given)
        except ValueError as raised:
            error = str(raised)
    return error, [str(warning.message) for warning in caught]


def with_method(words):
    """The arguments after `--moe-routing` has set its options; raises what it refuses."""
    from megatron.remoe.baselines.methods import apply_method

    args, given = parse(words)
    apply_method(args, given)
    return args
