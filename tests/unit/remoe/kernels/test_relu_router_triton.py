"""The Triton kernels of the router, on the CPU in Triton's interpreter.

There run all tests of the op, and below what only kernels have (the blocks they cut their work into).
"""

from pathlib import Path

import pytest
import torch

from triton_interpreter import from_outside, inside, needs_triton, num_passed

HERE = Path(__file__)
pytestmark = needs_triton


@from_outside
def test_the_interpreted_kernels_pass_the_tests_of_the_op():
    assert num_passed(HERE.with_name("test_relu_router.py"), HERE) > 40, "it ran them"


@inside
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("num_tokens", [1, 15, 16, 100])
def test_blocks_of_any_size_add_up(monkeypatch, num_tokens, padded):
    """One to 25 tiles of four tokens in at most three programs; the reduction takes two rows at once."""
    from remoe import relu_router
    from remoe.kernels import relu_router_triton as kernels
    from remoe.kernels.relu_router import relu_router_reference

    sizes = {"TILE": 32, "MAX_PROGRAMS": 3, "ELEMENTS": 64, "COLUMNS": 4, "ROWS": 2}
    for name, value in sizes.items():
        monkeypatch.setattr(kernels, name, value)
    generator = torch.Generator().manual_seed(num_tokens)
    logits = torch.randn(num_tokens, 6, generator=generator)
    mask = torch.rand(num_tokens, generator=generator) < 0.3 if padded else None
    results = []
    for op in (relu_router, relu_router_reference):
        leaf = logits.clone().requires_grad_()
        probs, routing_map, counts, sums = op(leaf, mask)
        ((probs * logits.cos()).sum() + (sums * torch.arange(6)).sum()).backward()
        results.append((probs.detach(), routing_map, counts, sums.detach(), leaf.grad))
    for name, mine, other in zip(
        ("probs", "map", "counts", "sums", "gradient"), *results, strict=True
    ):
        torch.testing.assert_close(mine, other, rtol=2e-6, atol=1e-6, msg=name)
