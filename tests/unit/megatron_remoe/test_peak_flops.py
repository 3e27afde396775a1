"""The table of peaks: whole names only, and the precision of the run."""

from argparse import Namespace

import pytest
import torch

from megatron.remoe.throughput.peak_flops import (
    PEAKS,
    known_peak,
    matmul_precision,
    peak_tflops,
)

# As torch.cuda.get_device_name gives them; bf16.
NAMES = {
    "NVIDIA A100-SXM4-80GB": 312,
    "A100-PCIE-40GB": 312,  # older drivers
    "NVIDIA A100 80GB PCIe": 312,
    "NVIDIA A800-SXM4-80GB": 312,
    "NVIDIA A30": 165,
    "NVIDIA A40": 149.7,
    "NVIDIA A10": 125,
    "NVIDIA RTX A6000": 154.8,
    "NVIDIA H100 80GB HBM3": 989.4,
    "NVIDIA H200": 989.4,
    "NVIDIA H800": 989.4,
    "NVIDIA GH200 480GB": 989.4,
    "NVIDIA H100 PCIe": 756,
    "NVIDIA H100 NVL": 835.5,
    "NVIDIA H200 NVL": 835.5,
    "NVIDIA H20": 148,
    "NVIDIA B200": 2250,
    "NVIDIA GB200": 2500,
    "NVIDIA L4": 121,
    "NVIDIA L40": 181,
    "NVIDIA L40S": 362,
    "NVIDIA RTX 6000 Ada Generation": 364.2,
    "NVIDIA GeForce RTX 3090": 71,
    "NVIDIA GeForce RTX 4090": 165.2,
    "NVIDIA GeForce RTX 5090": 209.5,
}
OTHERS = [
    "cpu",
    "NVIDIA A10G",  # another GPU
    "NVIDIA H200 MIG 1g.18gb",
    "NVIDIA A100-SXM4-80GB MIG 3g.40gb",
    "NVIDIA GeForce RTX 4090 D",
    "NVIDIA GeForce RTX 4090 Laptop GPU",
    "NVIDIA GeForce RTX 3090 Ti",
    "Tesla V100-SXM2-32GB",
]


def arguments(**changes):
    return Namespace(
        **{"peak_tflops": None, "bf16": False, "fp16": False, "fp8": None, "fp4": None} | changes
    )


@pytest.mark.parametrize(("name", "peak"), NAMES.items())
def test_it_knows_a_device_by_its_whole_name(name, peak):
    assert known_peak(name, "bf16") == peak


@pytest.mark.parametrize("name", OTHERS)
def test_it_does_not_guess(name):
    assert known_peak(name, "bf16") is None


def test_every_row_has_a_name_here():
    found = {peaks for peaks in PEAKS.values() if peaks[0] in NAMES.values()}
    assert found == set(PEAKS.values())


def test_less_precision_is_never_slower():
    assert all(bf16 > tf32 >= fp32 for bf16, tf32, fp32 in PEAKS.values())


@pytest.mark.parametrize(
    ("changes", "peak"),
    [
        ({"bf16": True}, 989.4),
        ({"fp16": True}, 989.4),
        ({}, 66.9),
        ({"bf16": True, "fp8": "hybrid"}, None),
        ({"bf16": True, "fp4": "e2m1"}, None),
        ({"peak_tflops": 500.0, "bf16": True}, 500.0),  # the flag wins
        ({"peak_tflops": 1979.0, "bf16": True, "fp8": "hybrid"}, 1979.0),
    ],
)
def test_the_peak_is_that_of_the_precision_unless_the_flag_says(monkeypatch, changes, peak):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    assert peak_tflops(arguments(**changes)) == peak


def test_fp32_is_tf32_where_torch_may_use_it(monkeypatch):
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    assert matmul_precision(arguments()) == "tf32"
    assert known_peak("NVIDIA H200", "tf32") == 494.7
