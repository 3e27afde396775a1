"""The flags of recording, and what they do not go with."""

from argparse import ArgumentParser, Namespace

from megatron.remoe.conflicts import captures_moe_graph

DEPENDENT = ("--record-routing-interval", "--record-routing-token-ids")


def add_recording_args(parser: ArgumentParser) -> None:
    """Add the flags of recording to a parser, in a group of their own."""
    group = parser.add_argument_group("Recording", "routing statistics, for any router")
    group.add_argument(
        "--record-routing",
        metavar="DIR",
        help="Write what the routers do to DIR: one .npz of each evaluation and of every N-th training "
        "step (docs/routing_records.md). Changes nothing of the training.",
    )
    group.add_argument(
        "--record-routing-interval",
        type=int,
        metavar="N",
        help="Training steps from one record to the next. Default: --eval-interval.",
    )
    group.add_argument(
        "--record-routing-token-ids",
        type=int,
        default=1024,
        metavar="N",
        help="Follow the first N token ids of the vocabulary expert by expert: N x layers x experts "
        "numbers a record.",
    )


def check_recording(args: Namespace, given: frozenset[str]) -> None:
    """Refuse what cannot be recorded; set the default of the interval.

    Args:
        args: Parsed, not yet validated by Megatron. Changed in place.
        given: Flags that stand on the command line.

    Raises:
        ValueError: A line for each error, with the mend.
    """
    if args.record_routing is None:
        errors = [
            f"{flag}: has no effect without --record-routing DIR: give both or none"
            for flag in DEPENDENT
            if flag in given
        ]
    else:
        if args.record_routing_interval is None:
            args.record_routing_interval = args.eval_interval
        errors = _errors(args, given)
    if errors:
        raise ValueError("\n  ".join(errors))


def _errors(args: Namespace, given: frozenset[str]) -> list[str]:
    errors = []
    flag, interval = f"--record-routing {args.record_routing}", args.record_routing_interval
    if not args.record_routing or "://" in args.record_routing:
        errors.append(f"{flag}: give a folder of a file system")
    if not args.num_experts:
        errors.append(f"{flag}: a dense model has no routers: give --num-experts, or leave it out")
    if interval is None:
        errors.append(f"{flag}: give --record-routing-interval N (or --eval-interval)")
    elif interval < 1:
        errors.append(f"--record-routing-interval {interval}: give a whole number of at least 1")
    if args.record_routing_token_ids < 0:
        errors.append(
            f"--record-routing-token-ids {args.record_routing_token_ids}: give a whole number, 0 to "
            "follow none"
        )
    if captures_moe_graph(args, given):
        errors.append(
            f"{flag}: nothing is seen of routers that --cuda-graph-impl replays: name "
            "--cuda-graph-modules without MoE ones"
        )
    if args.mlp_chunks_for_training > 1:
        errors.append(
            f"{flag}: does not go with --mlp-chunks-for-training: a router sees parts of sequences "
            "then: leave one out"
        )
    return errors
