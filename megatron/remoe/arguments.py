"""The flags of ReMoE, and the parsing that puts them through Megatron's own."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence

from megatron.training import arguments as megatron_arguments
from megatron.training.global_vars import get_tokenizer, set_global_variables

from megatron.remoe.baselines.methods import METHODS, apply_method
from megatron.remoe.checkpoint.agreement import check_settings, check_vocabulary, restart_once
from megatron.remoe.checkpoint.files import check_checkpoint
from megatron.remoe.checkpoint.finished import skip_training_if_finished
from megatron.remoe.checkpoint.patches import guard_checkpoints, start_helpers
from megatron.remoe.checkpoint.restore_settings import given_names, restore_settings
from megatron.remoe.checkpoint.stored_run import StoredRun, read_stored_run
from megatron.remoe.conflicts import check_conflicts
from megatron.remoe.data_paths import check_data_paths
from megatron.remoe.granularity import apply_granularity
from megatron.remoe.machine import fit_to_machine
from megatron.remoe.patches import keep_adam_step_in_groups
from megatron.remoe.recording.options import add_recording_args, check_recording
from megatron.remoe.script_options import check_script_options


def add_remoe_args(parser: ArgumentParser) -> ArgumentParser:
    """Add the flags of ReLU routing to Megatron's parser."""
    group = parser.add_argument_group("ReMoE", "ReLU routing (arXiv 2412.14711)")
    _add_method(group)
    _add_baselines(group)
    _add_dense_stage(group)
    _add_run(group)
    add_recording_args(parser)
    return parser


def _add_method(group) -> None:
    """What the paper has."""
    group.add_argument(
        "--moe-relu-routing",
        action="store_true",
        help="Route by ReLU instead of TopK+Softmax: each token visits the experts whose logit is "
        "positive, on average --moe-router-topk of them.",
    )
    group.add_argument(
        "--moe-relu-l1-reg-coeff-init",
        type=float,
        default=1e-8,
        help="lambda_0: coefficient of the L1 regulariser at the first step.",
    )
    group.add_argument(
        "--moe-relu-l1-reg-coeff-multiplier",
        type=float,
        default=1.2,
        help="alpha: the coefficient moves by this factor each step, up while routing is denser "
        "than 1 - topk/experts, down while it is sparser.",
    )
    group.add_argument(
        "--moe-relu-load-balancing",
        choices=["micro-batch", "none"],
        default="micro-batch",
        help="Weigh the regulariser by the expert load of the micro-batch (eq. 10), or not (eq. 9).",
    )
    group.add_argument(
        "--moe-granularity",
        type=int,
        default=1,
        help="G: split each expert into G of 1/G the width and multiply --moe-router-topk by G. "
        "For ReLU and TopK routing.",
    )


def _add_baselines(group) -> None:
    """What ReLU routing is compared with."""
    group.add_argument(
        "--moe-routing",
        choices=list(METHODS),
        metavar="NAME",
        help=f"Routing method, with the options that make it: {', '.join(METHODS)}; see "
        "docs/baselines.md. Without it Megatron's own options decide, and --moe-relu-routing.",
    )
    group.add_argument(
        "--moe-topk-warmup-experts",
        type=int,
        metavar="K",
        help="With topk-warmup: experts a token in the first steps (of those that --moe-granularity "
        "makes). Default: 3/4 of all.",
    )
    group.add_argument(
        "--moe-topk-warmup-steps",
        type=int,
        default=100,
        metavar="N",
        help="With topk-warmup: the training step from which a token has --moe-router-topk experts.",
    )
    group.add_argument(
        "--moe-sparsemixer-jitter",
        type=float,
        default=0.1,
        metavar="R",
        help="With sparsemixer: an expert may be sampled whose logit is at most 2 R below the largest, "
        "as a share of the larger of both magnitudes.",
    )
    group.add_argument(
        "--moe-hash-seed",
        type=int,
        default=0,
        help="With hash: of the tables from token ids to experts. Another --seed leaves them.",
    )


def _add_dense_stage(group) -> None:
    """What bounds or shortens the first stage."""
    group.add_argument(
        "--moe-relu-l1-reg-coeff-warmup-multiplier",
        type=float,
        metavar="W",
        help="Move the coefficient by W instead of alpha until sparsity first reaches its target; "
        "at least alpha. Shortens the dense stage; the larger, the more sparsity overshoots (2 is too "
        "much in small runs). Off by default.",
    )
    group.add_argument(
        "--moe-relu-chunk-above",
        type=float,
        metavar="M",
        help="Where a layer has more than M active experts a token, let its experts take the tokens in "
        "chunks of about M rows a token and compute each again in the backward pass. Bounds the memory "
        "of the dense stage; same result. Off by default.",
    )
    group.add_argument(
        "--moe-relu-max-active-experts",
        type=int,
        metavar="C",
        help="Let a token visit the C experts with its largest gates only (of those that "
        "--moe-granularity makes). Rises evenly to all experts over --moe-relu-cap-steps. Bounds "
        "memory and time of the dense stage; regulariser, counters and lambda see all gates. Off by "
        "default.",
    )
    group.add_argument(
        "--moe-relu-cap-steps",
        type=int,
        metavar="N",
        help="The training step from which --moe-relu-max-active-experts caps nothing.",
    )


def _add_run(group) -> None:
    """What changes neither model nor method."""
    group.add_argument(
        "--moe-relu-row-budget",
        type=float,
        metavar="M",
        help="Make M * topk * tokens rows in each layer without asking the device how many are active. "
        "A step that needs more is run again without; same result; off by default. One rank holds all "
        "experts, torch's grouped ones.",
    )
    group.add_argument(
        "--moe-relu-restart-l1-reg-coeff",
        action="store_true",
        help="Start lambda anew at --moe-relu-l1-reg-coeff-init after loading a checkpoint: for one "
        "without lambda (a TopK model, an older run), or to restart its schedule. Once: not where a "
        "run goes on with its own checkpoint (--load is --save).",
    )
    group.add_argument(
        "--moe-relu-router-thresholds",
        type=float,
        nargs="+",
        metavar="T",
        help="Change the number of active experts of a trained model: one threshold a layer (0 for a "
        "dense one), as tools/checkpoint/set_active_experts.py finds them. Above 0 it drops the smaller "
        "gates, below 0 gates are ReLU(logits - T). With --skip-train alone.",
    )
    group.add_argument(
        "--no-verify-integrity",
        action="store_true",
        help="Neither hash the files of checkpoints when they are saved nor compare them when one is "
        "loaded (sizes and indexes are always checked). Saves reading each checkpoint once more.",
    )
    group.add_argument(
        "--peak-tflops",
        type=float,
        metavar="TFLOPS",
        help="Dense peak of one device in TFLOP/s at the precision of the run, for the mfu of "
        "--log-throughput: where the device is not in the table, or to replace its figure.",
    )


def parse_and_validate_args(
    extra_args_provider: Callable[[ArgumentParser], ArgumentParser] | None = None,
    args_defaults: dict | None = None,
    argv: Sequence[str] | None = None,
) -> Namespace:
    """Megatron's `parse_and_validate_args` with the flags of ReMoE.

    Parses, refuses what does not go together, fits the rest to this machine, and lets Megatron
    validate and publish the result. Without `--moe-relu-routing` the model is Megatron's own.

    Args:
        extra_args_provider: Adds further flags to the parser.
        args_defaults: As Megatron takes it.
        argv: What the user wrote, to tell a flag that was given from a default; `sys.argv[1:]`.

    Raises:
        ValueError: Listing every conflict, each with its mend; or what Megatron's validation says.
    """
    parsers = []

    def add_args(parser: ArgumentParser) -> ArgumentParser:
        parser = add_remoe_args(parser)
        parsers.append(extra_args_provider(parser) if extra_args_provider else parser)
        return parsers[0]

    given = given_flags(sys.argv[1:] if argv is None else argv)
    if "--yaml-cfg" in given:
        raise ValueError(
            "--yaml-cfg: the file would replace all arguments, ReMoE's too: give flags"
        )
    args = megatron_arguments.parse_args(add_args)
    stored = _look_at_checkpoint(args, given, parsers[0])
    check_script_options(args)
    apply_method(args, given)
    check_conflicts(args, given)
    check_recording(args, given)
    check_data_paths(args)
    if args.save and args.ckpt_format == "torch_dist":
        start_helpers(args.async_save)
    fit_to_machine(args, given)
    apply_granularity(args)
    if args.moe_relu_routing:
        set_for_relu_routing(args)
    _validate(args, args_defaults or {})
    check_settings(args, given, stored)
    skip_training_if_finished(args, stored)
    set_global_variables(args)
    check_vocabulary(get_tokenizer().vocab_size, given, stored)
    args.moe_hash_vocab_size = get_tokenizer().vocab_size  # saved with the others
    return args


def _look_at_checkpoint(
    args: Namespace, given: frozenset[str], parser: ArgumentParser
) -> StoredRun | None:
    """Make reading checkpoints safe; read, and restore, what the one to load says of its run."""
    guard_checkpoints()
    keep_adam_step_in_groups()
    folder = check_checkpoint(args)
    stored = read_stored_run(folder) if folder else None
    if args.use_checkpoint_args:
        restore_settings(args, given_names(parser, given), stored)
    restart_once(args, stored)
    return stored


def _validate(args: Namespace, args_defaults: dict) -> None:
    # Megatron asserts a GPU on which TransformerEngine's grouped GEMM runs; torch's needs none.
    grouped = args.moe_grouped_gemm
    args.moe_grouped_gemm = grouped and not args.torch_native_layers
    try:
        megatron_arguments.validate_args(args, args_defaults)
    except AssertionError as error:
        if not str(error):
            raise  # only the traceback says what is wrong
        raise ValueError(f"Megatron refuses these options: {error}") from error
    args.moe_grouped_gemm = grouped


def given_flags(argv: Sequence[str]) -> frozenset[str]:
    """The flags that stand on a command line, without their values."""
    return frozenset(word.split("=", 1)[0] for word in argv if word.startswith("--"))


def set_for_relu_routing(args: Namespace) -> None:
    """Set what ReLU routing replaces so that Megatron's own checks pass and its losses stay off."""
    args.moe_router_load_balancing_type = "none"
    args.moe_aux_loss_coeff = 0.0
    # Megatron refuses softmax top-1 without it; there is no softmax here.
    args.moe_router_pre_softmax = True
