"""Every replacement of a Megatron function on any machine (those for CPU only: `cpu`).

Each is idempotent, small, and says what it replaces and why no slot would do.
"""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager


def use_prebuilt_helpers() -> None:
    """Let `pretrain` start from the wheel.

    Replaces `megatron.core.datasets.utils.compile_helpers`, which runs `make` in the installed
    package. The wheel ships the compiled `helpers_cpp` and no Makefile, so it ends in `sys.exit(1)`.
    Left alone where `helpers_cpp` cannot be imported (a source checkout that must compile).
    """
    try:
        from megatron.core.datasets import helpers_cpp  # noqa: F401
    except ImportError:
        return
    from megatron.core.datasets import utils

    utils.compile_helpers = lambda: None


def count_flops_of_active_experts(mean_active_experts: Callable[[], float | None]) -> None:
    """Count TFLOP/s from the experts that were active, not from `--moe-router-topk`.

    Replaces `megatron.training.training.num_floating_point_operations`, which reads the nominal k
    from the arguments; there is no slot for a measured one. The count is linear in k, so a mean over
    layers and tokens is exact.

    Args:
        mean_active_experts: Gives the active experts a token, or None before anything was measured.
    """
    from megatron.training import training

    from megatron.remoe.throughput.flops import with_active_experts

    original = _original(training.num_floating_point_operations)

    @functools.wraps(original)
    def num_floating_point_operations(args, *rest, **kwargs):
        return original(with_active_experts(args, mean_active_experts()), *rest, **kwargs)

    num_floating_point_operations.remoe_original = original
    training.num_floating_point_operations = num_floating_point_operations


def extend_training_log(throughput) -> None:
    """Let each line of the training log end in what `throughput` measured.

    Replaces `megatron.training.training.training_log`, which takes the time, makes the line and prints
    it. Its one slot, the tracker of MoE metrics, comes before the time is taken and not to dense models.
    While it runs, the `print_rank_last` that it prints its line with prints more.

    Args:
        throughput: A `megatron.remoe.throughput.training.TrainingThroughput`.
    """
    from megatron.training import training

    original = _original(training.training_log)

    @functools.wraps(original)
    def training_log(loss_dict, total_loss_dict, learning_rate, iteration, *rest, **kwargs):
        throughput.count(
            kwargs.get("total_real_tokens_in_batch"), kwargs.get("seqlen_squared_sum_in_batch")
        )
        is_first, lines = kwargs.get("is_first_iteration", False), []
        print_rank_last = training.print_rank_last

        def print_more(line):
            lines.append(line)
            print_rank_last(line + throughput.report(iteration, is_first))

        training.print_rank_last = print_more
        try:
            result = original(loss_dict, total_loss_dict, learning_rate, iteration, *rest, **kwargs)
        finally:
            training.print_rank_last = print_rank_last
        if lines and not is_first:
            throughput.restart()
        return result

    training_log.remoe_original = original
    training.training_log = training_log


def watch_evaluation(watch: Callable[[list], AbstractContextManager]) -> None:
    """Enter `watch(model)` for each evaluation of one validation set.

    Replaces `megatron.training.training.evaluate`. Its slot, `non_loss_data_func`, is the training
    script's, and is called after the last batch only.

    Args:
        watch: Takes the pipeline stages of this rank.
    """
    from megatron.training import training

    original = _original(training.evaluate)

    @functools.wraps(original)
    def evaluate(forward_step_func, data_iterator, model, *rest, **kwargs):
        with watch(model):
            return original(forward_step_func, data_iterator, model, *rest, **kwargs)

    evaluate.remoe_original = original
    training.evaluate = evaluate


def watch_evaluations(watch: Callable[..., AbstractContextManager]) -> None:
    """Enter `watch` for each evaluation, of one or several validation sets or of the test set.

    Replaces `megatron.training.training.evaluate_and_print_results`: nothing else knows the step, and
    that it is the test set. The end of each set comes through Megatron's slot, `non_loss_data_func`.

    Args:
        watch: Takes the iteration, whether it is the test set, and the number of sets; gives what to
            call at the end of each.
    """
    from megatron.training import training

    original = _original(training.evaluate_and_print_results)

    @functools.wraps(original)
    def evaluate_and_print_results(
        prefix, forward_step_func, data_iterator, model, iteration, *rest, **kwargs
    ):
        has_sets = training.get_args().multiple_validation_sets
        num_sets = len(data_iterator) if has_sets else 1
        with watch(iteration, prefix.endswith("test set"), num_sets) as end_of_set:
            after = kwargs.pop("non_loss_data_func", None)

            def at_end(model):
                end_of_set()
                return after(model) if after else None

            return original(
                *(prefix, forward_step_func, data_iterator, model, iteration, *rest),
                non_loss_data_func=at_end,
                **kwargs,
            )

    evaluate_and_print_results.remoe_original = original
    training.evaluate_and_print_results = evaluate_and_print_results


def wrap_training_steps(wrapper: Callable[[Callable], Callable]) -> None:
    """Let `wrapper` run the forward-backward of each step.

    Replaces `megatron.training.training.get_forward_backward_func`, which `train` asks once. It wraps
    what it gets for its own capacity factor at the same place, but by a fixed class.

    Args:
        wrapper: Given Megatron's function, gives the one to call instead. It is called for validation
            too.
    """
    from megatron.training import training

    original = _original(training.get_forward_backward_func)

    @functools.wraps(original)
    def get_forward_backward_func(*args, **kwargs):
        return wrapper(original(*args, **kwargs))

    get_forward_backward_func.remoe_original = original
    training.get_forward_backward_func = get_forward_backward_func


def _original(function: Callable) -> Callable:
    """What stood there before an earlier call of one of these replaced it."""
    return getattr(function, "remoe_original", function)


def keep_adam_step_in_groups() -> None:
    """Let a distributed optimizer on torch's Adam be loaded, and resharded.

    Replaces the class that Megatron takes for Adam where neither TransformerEngine nor Apex is there
    (`megatron.core.optimizer.Adam`), and the flags that tell its checkpointing which one it is. It
    chooses by what can be imported; there is no slot. Nothing happens where either is installed.
    """
    from megatron.core import optimizer
    from megatron.core.optimizer import distrib_optimizer

    if not optimizer.USING_PYTORCH_OPTIMIZER:
        return
    from megatron.remoe.torch_native.adam import adam

    optimizer.Adam = adam
    optimizer.USING_PYTORCH_OPTIMIZER = False
    # Apex's FusedAdam has the same layout of state, and Megatron asks it for nothing else.
    distrib_optimizer.HAVE_APEX_OR_TE = True
    distrib_optimizer.USING_APEX_OPTIMIZER = True
