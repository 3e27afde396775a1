"""Peak FLOP/s of accelerators, for MFU."""

import re
from argparse import Namespace

import torch

# Dense peaks in TFLOP/s with fp32 accumulation: bf16 and fp16, TF32, fp32 without tensor cores.
# From NVIDIA's datasheets and architecture whitepapers (Ampere GA100 and GA102, Ada AD102, Hopper GH100,
# Blackwell and RTX Blackwell); where these give figures with sparsity, half of them.
# Whole names only: an A10G is no A10, and a laptop's or a MIG slice of a GPU is none of these.
PEAKS = {
    r"A[18]00[ -](SXM4|PCIE|PCIe|80GB).*": (312, 156, 19.5),
    r"A30": (165, 82.5, 10.3),
    r"A40": (149.7, 74.8, 37.4),
    r"A10": (125, 62.5, 31.2),
    r"RTX A6000": (154.8, 77.4, 38.7),
    r"H100 80GB HBM3|H800|H200|GH200 \d+GB": (989.4, 494.7, 66.9),
    r"H100 PCIe": (756, 378, 51.2),
    r"H[12]00 NVL": (835.5, 417.5, 60),
    r"H20": (148, 74, 44),
    r"B200": (2250, 1125, 75),
    r"GB200": (2500, 1250, 80),
    r"L4": (121, 60, 30.3),
    r"L40": (181, 90.5, 90.5),
    r"L40S": (362, 183, 91.6),
    r"RTX 6000 Ada Generation": (364.2, 182.1, 91.1),
    r"GeForce RTX 3090": (71, 35.6, 35.6),
    r"GeForce RTX 4090": (165.2, 82.6, 82.6),
    r"GeForce RTX 5090": (209.5, 104.8, 104.8),
}
PRECISIONS = ("bf16", "tf32", "fp32")


def peak_tflops(args: Namespace) -> float | None:
    """Peak of this rank's device in TFLOP/s at the precision of this run.

    Args:
        args: `--peak-tflops` stands for any device and precision.

    Returns:
        None where neither the flag nor the table knows.
    """
    if args.peak_tflops is not None:
        return args.peak_tflops
    return known_peak(torch.cuda.get_device_name(), matmul_precision(args))


def known_peak(device_name: str, precision: str) -> float | None:
    """The table's peak in TFLOP/s, or None.

    Args:
        device_name: As `torch.cuda.get_device_name` gives it.
        precision: One of `PRECISIONS`; others are in no row.
    """
    if "MIG" in device_name or precision not in PRECISIONS:
        return None
    name = device_name.removeprefix("NVIDIA ")
    for pattern, peaks in PEAKS.items():
        if re.fullmatch(pattern, name):
            return float(peaks[PRECISIONS.index(precision)])
    return None


def matmul_precision(args: Namespace) -> str:
    """What matrices are multiplied in: "fp8", "fp4", "bf16" (also for fp16), "tf32" or "fp32"."""
    if args.fp8 or args.fp4:
        return "fp8" if args.fp8 else "fp4"
    if args.bf16 or args.fp16:
        return "bf16"
    return "fp32" if torch.get_float32_matmul_precision() == "highest" else "tf32"
