"""A run that is asked to go on after its last step."""

from argparse import Namespace

from megatron.remoe.checkpoint.stored_run import StoredRun, is_own


def skip_training_if_finished(args: Namespace, stored: StoredRun | None) -> None:
    """Evaluate only, as `--skip-train` does, where the checkpoint to go on from has every step.

    Megatron would ask its sampler for samples beyond the last, which it asserts against. A job that
    is queued again after its end must not fail.

    Args:
        args: Validated, and compared with the checkpoint as for training. Changed in place.
        stored: The run that saved the checkpoint; None where none is loaded.
    """
    if stored is None or args.skip_train or args.finetune or not is_own(args, stored.folder):
        return
    name = stored.folder.name.removeprefix("iter_")
    by_steps = args.train_iters and name.isdigit() and int(name) >= args.train_iters
    seen = getattr(stored.args, "consumed_train_samples", 0)
    by_samples = args.train_samples and seen >= args.train_samples
    if not (by_steps or by_samples):
        return
    args.skip_train = args.no_load_optim = True  # as Megatron's validation sets them
    if args.rank == 0:
        goal = f"--train-iters {args.train_iters}" if by_steps else f"--train-samples {seen}"
        print(
            f"> ReMoE: {stored.folder} has every step of {goal}: evaluates, and trains no more",
            flush=True,
        )
