"""The model for transformers, and a checkpoint's model in one process, on a GPU (`make test-gpu`)."""

import sys

import pytest
import torch

from commands import RELU_MOE, pretrain, run
from hf_models import tiny_model, tokens

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("implementation", ["grouped_mm", "loop"])
def test_the_gpu_computes_what_the_cpu_computes(implementation):
    model = tiny_model(hidden_size=64, moe_intermediate_size=64)
    model.set_experts_implementation(implementation)
    expected = model(tokens()).logits
    found = model.cuda()(tokens().cuda()).logits.cpu()
    assert torch.allclose(found, expected, atol=1e-4)


def test_bf16_generates_on_the_gpu():
    model = tiny_model(hidden_size=64, moe_intermediate_size=64).to("cuda", torch.bfloat16)
    prompts = tokens().cuda()
    made = model.generate(
        prompts, attention_mask=torch.ones_like(prompts), min_new_tokens=8, max_new_tokens=8
    )
    assert made.shape == (2, prompts.shape[1] + 8)


def test_a_checkpoint_of_the_gpu_is_converted_and_checked(tmp_path):
    saving = ["--save", str(tmp_path / "megatron"), "--save-interval", "2", "--train-iters", "2"]
    done = pretrain(*RELU_MOE, "--bf16", *saving)
    assert done.returncode == 0, done.stderr[-2000:]
    words = ["--to", "hf", "--input", str(tmp_path / "megatron"), "--output", str(tmp_path / "hf")]
    done = run([sys.executable, "tools/checkpoint/convert.py", *words])
    assert done.returncode == 0, done.stderr[-2000:]
    assert "largest difference" in done.stdout
