"""Options of Megatron that the training script must carry out, and that ours does not."""

from argparse import Namespace

# name of the argument, flag. Megatron's own pretrain_gpt.py reads them; ours would ignore them.
NOT_HERE = (
    ("sft", "--sft"),
    ("fim_data", "--fim-data"),
    ("dataloader_inter_document_masking", "--dataloader-inter-document-masking"),
    ("hybrid_context_parallel", "--hybrid-context-parallel"),
    ("per_dataset_sequences_path", "--per-dataset-sequences-path"),
    ("dataloader_fast_cache_load", "--dataloader-fast-cache-load"),
    ("freeze_all_layers", "--freeze-all-layers"),
    ("check_for_spiky_loss", "--check-for-spiky-loss"),
    ("mtp_num_layers", "--mtp-num-layers"),
)

# name, flag; Megatron ends in a bare assertion or a TypeError without them.
REQUIRED = (
    ("num_layers", "--num-layers"),
    ("hidden_size", "--hidden-size"),
    ("num_attention_heads", "--num-attention-heads"),
    ("seq_length", "--seq-length"),
    ("max_position_embeddings", "--max-position-embeddings"),
    ("micro_batch_size", "--micro-batch-size"),
    ("lr", "--lr"),
    ("eval_interval", "--eval-interval"),
)


def check_script_options(args: Namespace) -> None:
    """Refuse what would be ignored, and name what is missing.

    Args:
        args: Parsed, with the settings of a checkpoint in it where it is to give them, not yet
            validated by Megatron.

    Raises:
        ValueError: Naming every flag.
    """
    errors = [
        f"{flag}: pretrain_gpt.py here does not carry it out: leave it out"
        for name, flag in NOT_HERE
        if getattr(args, name, None)
    ]
    if not args.skip_train:
        errors += [f"{flag}: give it" for name, flag in REQUIRED if getattr(args, name) is None]
        if not (args.train_iters or args.train_samples):
            errors.append("--train-iters (or --train-samples): give a number above 0")
    if args.use_checkpoint_args and not (args.load or args.pretrained_checkpoint):
        errors.append("--use-checkpoint-args: needs --load or --pretrained-checkpoint")
    if args.rerun_mode == "report_stats":
        errors.append(
            "--rerun-mode report_stats: Megatron 0.19.2 knows it by another name: leave it out"
        )
    if args.rampup_batch_size:
        errors.append("--rampup-batch-size: Megatron ignores it: give --step-batch-size-schedule")
    if args.save and not args.save_interval:
        errors.append("--save: needs --save-interval")
    errors += _evaluation_errors(args)
    if args.peak_tflops is not None:
        errors += _peak_errors(args)
    if not (args.mock_data or _names_data(args)):
        errors.append("--data-path: give the prefix of indexed data, or --mock-data")
    if errors:
        raise ValueError("\n  ".join(["these options cannot be trained with:", *errors]))


def _evaluation_errors(args: Namespace) -> list[str]:
    size = args.eval_micro_batch_size
    if size in (None, args.micro_batch_size):
        return []
    flag = f"--eval-micro-batch-size {size}"
    if args.tensor_model_parallel_size > 1:  # Megatron broadcasts buffers of the training size
        return [f"{flag}: tensor parallelism needs that of --micro-batch-size: leave it out"]
    if args.moe_routing == "expert-choice":
        return [f"{flag}: --moe-routing expert-choice chooses within it: leave it out"]
    return []


def _peak_errors(args: Namespace) -> list[str]:
    if not 0 < args.peak_tflops < float("inf"):
        return [f"--peak-tflops {args.peak_tflops:g}: give the TFLOP/s of one device, above 0"]
    if not args.log_throughput:
        return ["--peak-tflops: has no effect without --log-throughput: add it"]
    return []


def _names_data(args: Namespace) -> bool:
    names = ("data_path", "train_data_path", "valid_data_path", "test_data_path")
    names += ("data_args_path", "per_split_data_args_path")
    return any(getattr(args, name) for name in names)
