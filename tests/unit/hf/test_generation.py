"""`generate`: with and without a cache, greedy, sampled, beams, batched behind left padding."""

import pytest
import torch
from transformers import set_seed

from hf_models import VARIANTS, tiny_model, tokens

NEW = 8
SOME = [
    "plain",
    "dense and sparse layers",
    "gated shared expert",
    "thresholds",
    "norm over all heads",
]


def generate(model, prompt, **options):
    settings = {"max_new_tokens": NEW, "do_sample": False, "pad_token_id": 0} | options
    mask = settings.pop("attention_mask", torch.ones_like(prompt))
    return model.generate(prompt, attention_mask=mask, **settings)


@pytest.mark.parametrize("variant", SOME)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cache_gives_the_tokens_that_full_forwards_give(variant, dtype):
    model, prompt = tiny_model(**VARIANTS[variant]).to(dtype), tokens(3, 5)
    text = generate(model, prompt)
    assert text.shape == (3, 5 + NEW)
    assert torch.equal(text, generate(model, prompt, use_cache=False))
    if dtype == torch.float32:
        assert torch.equal(model(text[:, :-1]).logits[:, 4:].argmax(dim=-1), text[:, 5:])


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("variant", SOME)
def test_batch_behind_left_padding_gives_what_each_prompt_gives_alone(variant, implementation):
    model = tiny_model(**VARIANTS[variant])
    model.set_attn_implementation(implementation)
    prompts = [tokens(1, length, seed=length) for length in (1, 4, 9)]
    padded = torch.cat([torch.nn.functional.pad(p, (9 - p.shape[1], 0)) for p in prompts])
    together = generate(model, padded, attention_mask=(padded != 0).long())
    for row, prompt in zip(together, prompts, strict=True):
        assert torch.equal(row[9:], generate(model, prompt)[0, prompt.shape[1] :])


def test_static_cache_gives_the_tokens_of_the_growing_one():
    model, prompt = tiny_model(), tokens(2, 5)
    static = generate(model, prompt, cache_implementation="static")
    assert torch.equal(static, generate(model, prompt))


def test_sampling_follows_its_seed():
    model, prompt = tiny_model(), tokens(2, 5)
    texts = []
    for seed in (1, 1, 2):
        set_seed(seed)
        texts.append(generate(model, prompt, do_sample=True, temperature=2.0))
    assert torch.equal(texts[0], texts[1]) and not torch.equal(texts[0], texts[2])


def test_beams_score_at_least_what_greedy_scores():
    model, prompt = tiny_model(), tokens(1, 5)

    def score(text):
        logits = model(text[:, :-1]).logits[:, 4:].log_softmax(dim=-1)
        return logits.gather(-1, text[:, 5:, None]).sum()

    with torch.no_grad():
        assert score(generate(model, prompt, num_beams=4)) >= score(generate(model, prompt)) - 1e-4


def test_it_ends_at_the_end_of_text():
    model, prompt = tiny_model(), tokens(1, 5)
    third = generate(model, prompt)[0, 7].item()
    ended = generate(model, prompt, eos_token_id=third)
    assert ended[0, -1] == third and ended.shape[1] <= 8


def test_a_switch_to_batched_mm_as_generate_makes_it_on_a_gpu_changes_nothing():
    model, prompt = tiny_model(), tokens(2, 5)
    wanted = generate(model, prompt)
    model.set_experts_implementation("batched_mm")
    assert model.config._experts_implementation == "grouped_mm"
    assert torch.equal(generate(model, prompt), wanted)


def test_generation_counts_nothing():
    model = tiny_model().train()
    generate(model, tokens(2, 5))
    assert all(layer.mlp.router.counts is None for layer in model.model.layers)
