"""Compares a command line with the checkpoint that it will load, before anything is built."""

import warnings
from argparse import Namespace
from collections.abc import Iterable

from megatron.core.tokenizers.utils.build_tokenizer import vocab_size_with_padding

from megatron.remoe.checkpoint.files import resumes_itself
from megatron.remoe.checkpoint.settings import (
    CONTROLLER,
    FUNCTION,
    SCHEDULE,
    SHAPES,
    Setting,
    has_experts,
    keeps_experts_apart,
    routes_by_relu,
)
from megatron.remoe.checkpoint.stored_run import StoredRun, is_own, routing_of

RESTART = "--moe-relu-restart-l1-reg-coeff"
WARMUP = "--moe-relu-l1-reg-coeff-warmup-multiplier"
INIT = Setting("--moe-relu-l1-reg-coeff-init", "moe_relu_l1_reg_coeff_init", routes_by_relu)
# What --moe-granularity multiplies or divides.
SPLIT = ("num_experts", "moe_router_topk", "moe_ffn_hidden_size")


def restart_once(args: Namespace, stored: StoredRun | None) -> None:
    """Leave `RESTART` out where a run goes on with its own checkpoint, which has a lambda by now.

    The command of a run that resumes itself (`--load` is `--save`) keeps its flags, and would else
    start lambda anew each time.

    Args:
        args: Parsed. Changed in place.
        stored: The run that saved the checkpoint; None where none is loaded.
    """
    asked = args.moe_relu_routing and args.moe_relu_restart_l1_reg_coeff
    own = stored and resumes_itself(args) and is_own(args, stored.folder)
    if asked and own and stored.has_reg_coeff:
        args.moe_relu_restart_l1_reg_coeff = False
        _warn(
            args,
            f"{RESTART} has no effect: {stored.folder} is this run's own: give another --save than "
            "--load to start lambda anew",
        )


def check_settings(args: Namespace, given: frozenset[str], stored: StoredRun | None) -> None:
    """Refuse a checkpoint of another model, and warn of what steers the same one elsewhere.

    Settings that shape the weights, or the function that they compute, must agree; the latter may
    change where `--finetune` begins something new. The controller's target, factor and balancing
    may be changed on purpose, so they are only warned of.

    Args:
        args: Validated by Megatron; experts and k are those after `--moe-granularity`.
        given: Flags that stand on the command line.
        stored: The run that saved the checkpoint; None where none is loaded.

    Raises:
        ValueError: One message that lists every difference.
    """
    restarts = args.moe_relu_routing and args.moe_relu_restart_l1_reg_coeff
    if stored is None:
        if restarts and not (args.load or args.pretrained_checkpoint):
            _warn(args, f"{RESTART} has no effect: no checkpoint is loaded")
        return
    if not vars(stored.args):
        _warn(args, f"the checkpoint {stored.folder} holds no settings: they are not compared")
    errors = _format_errors(args, stored) + _routing_errors(args, stored)
    errors += differences(SHAPES, args, stored.args) + _expert_errors(args, stored)
    functions = differences(FUNCTION, args, stored.args)
    # Megatron takes --pretrained-checkpoint as --finetune.
    begins_anew = args.finetune or not is_own(args, stored.folder)
    if not begins_anew:
        errors += functions
    if (
        not begins_anew and stored.folder.name != "release"
    ):  # of which Megatron loads the model only
        errors += _optimizer_errors(args, stored) + _schedule_errors(args, stored.args)
    if errors:
        lines = "\n  ".join(errors)
        raise ValueError(
            f"the checkpoint {stored.folder} does not go with this command:\n  {lines}"
        )
    changes = differences(CONTROLLER, args, stored.args) + (functions if begins_anew else [])
    if changes:
        _warn(args, f"changed since the checkpoint {stored.folder}: {'; '.join(changes)}")
    if INIT.flag in given and not restarts and differences([INIT], args, stored.args):
        _warn(
            args, f"{INIT.flag} has no effect: lambda goes on from {stored.folder}: add {RESTART}"
        )


def check_vocabulary(vocab_size: int, given: frozenset[str], stored: StoredRun | None) -> None:
    """Refuse a checkpoint of another vocabulary; other padding, for another layout, is none.

    Args:
        vocab_size: Of the tokenizer, without padding.
        given: Flags that stand on the command line.
        stored: The run that saved the checkpoint; None where none is loaded.

    Raises:
        ValueError: Naming both sizes.
    """
    theirs = getattr(stored.args, "padded_vocab_size", None) if stored else None
    if theirs is None or "--padded-vocab-size" in given:
        return
    if vocab_size_with_padding(vocab_size, stored.args, logging_enabled=False) != theirs:
        raise ValueError(
            f"the checkpoint {stored.folder} has another vocabulary: the tokenizer has {vocab_size} "
            f"tokens, the checkpoint {theirs} with padding: give the tokenizer that it was trained "
            "with (--tokenizer-type, --tokenizer-model, --vocab-size), or --padded-vocab-size where it "
            "was trained with that"
        )


def differences(settings: Iterable[Setting], args: Namespace, stored: Namespace) -> list[str]:
    """A line for each setting in which two models differ.

    Args:
        settings: To compare. One that either model has no use for, or that the older run did not
            know, is no difference.
        args: Of this command, validated.
        stored: Of the checkpoint.
    """
    lines = []
    for setting in settings:
        known = hasattr(args, setting.name) and hasattr(stored, setting.name)
        if not (known and setting.matters(args) and setting.matters(stored)):
            continue
        here, there = setting.value(args), setting.value(stored)
        if here != there:
            flag, here, there = setting.flag, _words(setting, here), _words(setting, there)
            lines.append(f"{flag}: {here} here, {there} in the checkpoint{_split(setting, args)}")
    return lines


def _format_errors(args: Namespace, stored: StoredRun) -> list[str]:
    # The other way round Megatron looks for itself.
    if args.ckpt_format != "torch" or stored.form == "torch" or args.auto_detect_ckpt_format:
        return []
    return [
        f"--ckpt-format torch: the checkpoint is in format {stored.form}: add --auto-detect-ckpt-format"
    ]


def _routing_errors(args: Namespace, stored: StoredRun) -> list[str]:
    """What is wrong with the kind of routing, or with lambda."""
    here, there = routing_of(args), stored.routing
    if there == "ReMoE" and here != "ReMoE":
        return ["--moe-relu-routing: the checkpoint is a ReMoE model: add it"]
    if here != "ReMoE" or there == "dense" or args.moe_relu_restart_l1_reg_coeff:
        return []  # dense: --num-experts says it
    if there == "TopK":
        return [
            "--moe-relu-routing: the checkpoint is a TopK model and has no lambda: leave it out, or "
            f"add {RESTART} to train it on by ReLU routing"
        ]
    if not stored.has_reg_coeff:
        return [
            f"{RESTART}: the checkpoint has no lambda (an older run?): add it to start lambda at "
            f"--moe-relu-l1-reg-coeff-init {args.moe_relu_l1_reg_coeff_init:g}"
        ]
    return _warmup_errors(args, stored)


def _warmup_errors(args: Namespace, stored: StoredRun) -> list[str]:
    """Whether the checkpoint says if the warm-up of lambda is over."""
    name = "moe_relu_l1_reg_coeff_warmup_multiplier"
    knows = not vars(stored.args) or getattr(stored.args, name, None) is not None
    if knows or getattr(args, name) is None:
        return []
    return [
        f"{WARMUP}: the checkpoint was trained without it and does not say whether sparsity reached "
        f"its target: leave it out, or add {RESTART} to start lambda anew"
    ]


def _optimizer_errors(args: Namespace, stored: StoredRun) -> list[str]:
    """Whether this model's optimizer is built as the stored one."""
    is_new = args.no_load_optim or args.skip_train or getattr(stored.args, "no_save_optim", None)
    if is_new or not keeps_experts_apart(args) or stored.experts_apart:
        return []
    return [
        "--no-load-optim: the checkpoint's optimizer holds experts and dense parameters together (a "
        "TopK model without expert parallelism, an older run): add it to start the optimizer anew"
    ]


def _expert_errors(args: Namespace, stored: StoredRun) -> list[str]:
    """What cannot be loaded into experts that are held in other tensors.

    In format `torch_dist` weights are named by expert, and so is what an optimizer has, unless the
    distributed one saved its buffers as they lie: in them the same numbers stand for other weights.
    """
    here, there = _experts_of(args), _experts_of(stored.args)
    if not has_experts(args) or not has_experts(stored.args) or here == there:
        return []
    what = f"--moe-grouped-gemm: {here} here, {there} in the checkpoint"
    if stored.form == "torch":
        return [f"{what}, which is in format torch: give what it was saved with"]
    is_new = args.finetune or args.no_load_optim or args.skip_train
    is_new = is_new or getattr(stored.args, "no_save_optim", None)
    is_flat = getattr(stored.args, "use_distributed_optimizer", False) and not getattr(
        stored.args, "dist_ckpt_optim_fully_reshardable", False
    )
    if is_new or not is_flat or not is_own(args, stored.folder):
        return []
    return [
        f"{what}, whose optimizer was saved as its buffers lie: give what it was saved with (and "
        "--dist-ckpt-optim-fully-reshardable, then change), or --no-load-optim"
    ]


def _experts_of(args: Namespace) -> str:
    """How the weights of experts lie in memory."""
    if not getattr(args, "moe_grouped_gemm", False):
        return "off"
    if getattr(args, "torch_native_layers", False):
        return "on, with torch's experts"
    # Megatron's local layers ignore it.
    return "off" if args.transformer_impl == "local" else "on, with TransformerEngine's"


def _schedule_errors(args: Namespace, stored: Namespace) -> list[str]:
    """What Megatron's scheduler will not load."""
    chosen = args.override_opt_param_scheduler or args.use_checkpoint_opt_param_scheduler
    if chosen or args.skip_train or args.no_load_optim or getattr(stored, "no_save_optim", None):
        return []
    lines = differences(SCHEDULE, args, stored)
    mend = (
        "these belong to the schedule: add --override-opt-param-scheduler to take what is given here, "
        "or --use-checkpoint-opt-param-scheduler for the checkpoint's"
    )
    return [*lines, mend] if lines else []


def _words(setting: Setting, value: object) -> str:
    if isinstance(value, bool):
        return "on" if value != (setting.name == "add_bias_linear") else "off"
    return "none" if value is None else str(value)


def _split(setting: Setting, args: Namespace) -> str:
    """Says why a number is not the one that the user wrote."""
    if setting.name not in SPLIT or args.moe_granularity == 1 or not has_experts(args):
        return ""
    return f" (after --moe-granularity {args.moe_granularity})"


def _warn(args: Namespace, message: str) -> None:
    if args.rank == 0:
        warnings.warn(message, stacklevel=3)
