"""`ReMoELayer` with experts spread over ranks gives what one process gives on all tokens.

Each rank has tokens of its own; the regulariser's load is that of its own micro-batch. An expert's
gradient collects the tokens of every rank of its expert-parallel group.
"""

from itertools import product

import pytest
import torch

from moe_layers import assert_parity, make_reference, ragged, run_reference, tokens_for_map
from ranks_moe import moe_layers

T, RANKS = 8, 4
# name -> (layout, its expert-parallel groups)
LAYOUTS = {
    "EP 2": ({"expert_model_parallel_size": 2}, [(0, 1), (2, 3)]),
    "EP 4": ({"expert_model_parallel_size": 4}, [(0, 1, 2, 3)]),
}


def maps(num_experts):
    """By name, a routing map for each rank."""
    half = [ragged(T, num_experts, seed=rank) for rank in range(RANKS)]
    nothing, everything = torch.zeros_like(half[0]), torch.ones_like(half[0])
    experts = torch.arange(num_experts)
    tokens = torch.arange(T)[:, None]
    return {
        "ragged": half,
        "rank 1 inactive": [half[0], nothing, half[2], half[3]],
        "only rank 2 active": [nothing, nothing, half[2], nothing],
        "all ranks inactive": [nothing] * RANKS,
        "everything active": [everything] * RANKS,
        "an expert with no token anywhere": [m & (experts != num_experts - 1) for m in half],
        "all tokens to the experts of rank 0": [(experts == 0).expand(T, -1)] * RANKS,
        "T * k rows on each rank": [(experts - tokens - r) % num_experts < 2 for r in range(RANKS)],
    }


def make_cases():
    """Name -> (options of the config, reference, tokens by rank, directions by rank)."""
    cases = {}
    for num_experts, topk in ((4, 1), (8, 2), (32, 4)):
        hidden = max(32, 2 * num_experts)
        reference = make_reference(num_experts, topk, hidden)
        for kind, by_rank in maps(num_experts).items():
            if num_experts != 8 and kind != "ragged":
                continue  # every kind once, every E once
            tokens = [tokens_for_map(reference, m, seed=i) for i, m in enumerate(by_rank)]
            generator = torch.Generator().manual_seed(3)
            directions = [torch.randn(T, hidden, generator=generator) for _ in range(RANKS)]
            for dispatcher, grouped in product(("allgather", "alltoall"), (False, True)):
                options = {"num_experts": num_experts, "topk": topk, "hidden": hidden}
                options["moe_token_dispatcher_type"] = dispatcher
                options["moe_grouped_gemm"] = grouped
                experts = ", torch's grouped experts" if grouped else ""
                name = f"E={num_experts} k={topk}, {kind}, {dispatcher}{experts}"
                cases[name] = (options, reference, tokens, directions)
    return cases


CASES = make_cases()


@pytest.fixture(scope="module", params=LAYOUTS, ids=str)
def run(request, world):
    sizes, groups = LAYOUTS[request.param]
    return world.run(moe_layers, sizes, CASES, timeout=180), groups


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients_are_those_of_one_process(run, name):
    results, groups = run
    options, reference, tokens, directions = CASES[name]
    single = [run_reference(reference, *pair) for pair in zip(tokens, directions, strict=True)]
    for group in groups:
        held = set()
        for rank in group:
            ours, theirs = dict(results[rank][name]), {}
            counts = ours.pop("counts")
            for key in ours:
                is_expert = key.startswith("expert")
                theirs[key] = sum(single[r][key] for r in group) if is_expert else single[rank][key]
            held |= {key for key in ours if key.startswith("expert")}
            assert_parity(ours, theirs)
            expected = (tokens[rank] @ reference.router.T > 0).sum(0)
            assert torch.equal(counts[:-2], expected), "each rank counts its own tokens"
        assert len(held) == 2 * options["num_experts"], "every expert of the group has gradients"


def test_a_bf16_layer_is_as_good_as_on_one_rank(world):
    """Twice the error that plain PyTorch makes in bf16, for all tokens together."""
    reference = make_reference(8, 2).bfloat16()
    by_rank = maps(8)["ragged"]
    tokens = [tokens_for_map(reference.float(), m, i).bfloat16() for i, m in enumerate(by_rank)]
    directions = [torch.randn(T, 32).bfloat16() for _ in range(RANKS)]
    options = {"dtype": torch.bfloat16, "moe_router_dtype": "fp32"}
    case = {"bf16": (options, reference.bfloat16(), tokens, directions)}
    results = world.run(moe_layers, {"expert_model_parallel_size": 4}, case)

    pairs = list(zip(tokens, directions, strict=True))
    plain = [run_reference(reference.bfloat16(), x, d) for x, d in pairs]
    truth = [run_reference(reference.float(), x.float(), d.float()) for x, d in pairs]
    for rank in range(RANKS):
        for key, value in results[rank]["bf16"].items():
            if key == "counts":
                continue
            ranks = range(RANKS) if key.startswith("expert") else [rank]
            exact = sum(truth[r][key] for r in ranks)
            allowed = 2 * (sum(plain[r][key].float() for r in ranks) - exact).norm()
            assert (value.float() - exact).norm() <= allowed, key
