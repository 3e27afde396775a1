"""Megatron's forward pass behind the interface of transformers."""

import shutil

import numpy as np
import pytest
import torch
from torch.distributed.checkpoint import FileSystemReader

from megatron.remoe import micro_batch
from megatron.remoe.checkpoint.files import CheckpointError
from megatron.remoe.inference.causal_lm import MegatronForCausalLM
from megatron.remoe.inference.stored_model import load_model


@pytest.fixture(scope="module", params=["remoe", "topk", "dense"])
def model(request, saved_runs, single_rank):
    return MegatronForCausalLM.from_checkpoint(saved_runs / request.param, vocab_size=500)


def tokens(batch, length):
    return torch.randint(500, (batch, length), generator=torch.Generator().manual_seed(0))


def test_every_weight_is_the_stored_one(model):
    """By another way: torch's own reader, without Megatron's names of shards."""
    folder = model.stored.folder
    weights = dict(model.model.named_parameters())
    stored = FileSystemReader(str(folder)).read_metadata().state_dict_metadata
    wanted = {name: torch.empty(stored[name].size) for name in ("output_layer.weight", QKV)}
    torch.distributed.checkpoint.load(wanted, checkpoint_id=folder, no_dist=True)
    assert torch.equal(weights["output_layer.weight"], wanted["output_layer.weight"])
    for i in range(2):
        assert torch.equal(
            weights[f"decoder.layers.{i}.self_attention.linear_qkv.weight"], wanted[QKV][i]
        )


QKV = "decoder.layers.self_attention.linear_qkv.weight"


def test_logits_are_of_the_true_vocabulary(model):
    assert model(tokens(2, 7)).logits.shape == (2, 7, 500)


def test_a_token_sees_no_later_one_and_no_other_row(model):
    ids = tokens(2, 9)
    whole = model(ids).logits
    assert torch.allclose(model(ids[:, :5]).logits, whole[:, :5], atol=1e-5)
    assert torch.allclose(model(ids[1:]).logits, whole[1:], atol=1e-5)


def test_routers_know_the_token_ids_while_the_model_runs(model):
    seen = []
    layer = model.model.decoder.layers[0]
    handle = layer.register_forward_hook(lambda *_: seen.append(micro_batch.current()))
    ids = tokens(2, 5)
    model(ids)
    handle.remove()
    assert torch.equal(seen[0].token_ids, ids)
    assert seen[0].domains.tolist() == [0, 0]
    assert micro_batch.current() is None


def test_padding_at_the_end_of_rows_changes_nothing_before_it(model):
    ids = tokens(1, 6)
    padded = torch.cat((ids, torch.zeros(1, 3, dtype=ids.dtype)), dim=1)
    mask = torch.tensor([[1] * 6 + [0] * 3])
    logits = model(padded, attention_mask=mask).logits[:, :6]
    assert torch.allclose(logits, model(ids).logits, atol=1e-5)


def test_padding_at_the_start_of_rows_is_refused(model):
    with pytest.raises(ValueError, match="padded at their start"):
        model(tokens(1, 3), attention_mask=torch.tensor([[0, 1, 1]]))


def test_a_sequence_longer_than_the_positions_is_refused(model):
    with pytest.raises(ValueError, match="65 tokens: the model was trained on 64 at most"):
        model(tokens(1, 65))


def test_generate_takes_the_likeliest_token_each_time(model):
    ids = tokens(1, 4)
    expected = ids
    for _ in range(3):
        best = model(expected).logits[:, -1].argmax(-1, keepdim=True)
        expected = torch.cat((expected, best), dim=1)
    generated = model.generate(ids, max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert torch.equal(generated, expected)


def test_another_dtype_leaves_lambda(saved_runs, single_rank):
    exact, _ = load_model(saved_runs / "remoe")
    cast, _ = load_model(saved_runs / "remoe", torch.bfloat16)
    router, other = exact.decoder.layers[0].mlp.router, cast.decoder.layers[0].mlp.router
    assert other.weight.dtype == torch.bfloat16
    assert other.state.reg_coeff.dtype == torch.float32
    assert torch.equal(other.state.reg_coeff, router.state.reg_coeff)


def test_an_earlier_iteration_by_number_or_by_folder(saved_runs, single_rank):
    by_number, stored = load_model(saved_runs / "dense", ckpt_step=2)
    by_folder, _ = load_model(saved_runs / "dense/iter_0000002")
    newest, _ = load_model(saved_runs / "dense")
    assert stored.folder.name == "iter_0000002"
    first, second, last = (m.output_layer.weight for m in (by_number, by_folder, newest))
    assert torch.equal(first, second)
    assert not torch.equal(first, last)


def test_a_vocabulary_that_is_too_large_is_refused(saved_runs, single_rank):
    with pytest.raises(
        ValueError, match="the tokenizer has 50257 tokens, the model 512 with padding"
    ):
        MegatronForCausalLM.from_checkpoint(saved_runs / "dense", vocab_size=50257)


def test_format_torch_is_refused_with_the_mend(saved_runs, single_rank):
    with pytest.raises(CheckpointError, match="--auto-detect-ckpt-format"):
        load_model(saved_runs / "topk_torch")


def test_no_checkpoint_is_refused(tmp_path, single_rank):
    with pytest.raises(CheckpointError, match=r"neither metadata\.json"):
        load_model(tmp_path)


def test_names_that_another_library_took_from_the_safe_ones_are_safe_again(saved_runs, single_rank):
    """As transformers' Trainer does in the same process, when it loads its random states."""
    with torch.serialization.safe_globals([np.ndarray, np.dtype, np._core.multiarray._reconstruct]):
        pass
    load_model(saved_runs / "dense")


def test_a_truncated_file_is_refused(saved_runs, single_rank, tmp_path):
    folder = tmp_path / "iter_0000004"
    shutil.copytree(saved_runs / "dense/iter_0000004", folder)
    data = next(folder.glob("*.distcp"))
    data.write_bytes(data.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="truncated: 1000 of"):
        load_model(folder)
