"""Puts throughput into the log of a model that was built."""

import torch
from megatron.core.transformer.module import MegatronModule
from megatron.training import get_args

from megatron.remoe.patches import extend_training_log, watch_evaluation
from megatron.remoe.throughput.evaluation import report_evaluation
from megatron.remoe.throughput.peak_flops import matmul_precision, peak_tflops
from megatron.remoe.throughput.training import TrainingThroughput


def install_throughput_log(model: list[MegatronModule]) -> list[MegatronModule]:
    """Post-wrap hook of `--log-throughput`, for dense, TopK and ReLU-routed models.

    Args:
        model: The pipeline stages of this rank, wrapped. Returned unchanged.
    """
    args = get_args()
    peak = peak_tflops(args)
    if peak is None and args.rank == 0:
        device, precision = torch.cuda.get_device_name(), matmul_precision(args)
        print(
            f"> ReMoE: no peak FLOP/s known of {device} in {precision}, so the log has no mfu: "
            "give --peak-tflops",
            flush=True,
        )
    extend_training_log(TrainingThroughput(peak))
    watch_evaluation(lambda stages: report_evaluation(stages, peak))
    return model
