"""Hash routing: a fixed, random and balanced table from token ids to experts."""

import torch
from torch import Tensor

LOW_32 = 0xFFFFFFFF


def balanced_hash_table(
    vocab_size: int, num_experts: int, topk: int, seed: int, layer: int
) -> Tensor:
    """The experts of each token id, in one layer.

    The ids are put into a random order and dealt to the experts in turn. With k > 1 each deal of E ids
    also draws k distinct offsets, which turn the deal k times: an id's experts differ from each other,
    and each whole deal gives each expert k ids. So an expert's number of ids is k V / E, give or take k.

    It is computed from its arguments by integer arithmetic of our own, not by a generator whose stream
    a version or a device may change: every rank, a resumed run and a model loaded elsewhere get the same
    table, and nothing has to be saved.

    Args:
        vocab_size: ``V``, token ids of the tokenizer, without padding.
        num_experts: ``E``.
        topk: ``k``, experts of each id, at most E.
        seed: Of the table.
        layer: Each layer has another table.

    Returns:
        ``[V, k]`` int64, on the CPU.

    Source: arXiv 2106.04426, section 3: a random and a balanced hash of the current token, fixed
    before training. Its balance is of occurrences in the training text, ours of ids. Its MultiHash
    splits matrices for more than one hash; k > 1 here is whole experts, as in all other methods.
    """
    stream = _mix(_mix(torch.tensor([seed])) + layer)
    keys = _mix(_mix(stream + 1) + torch.arange(vocab_size))
    place = torch.empty(vocab_size, dtype=torch.int64)
    place[keys.argsort(stable=True)] = torch.arange(vocab_size)
    deals = torch.arange(-(-vocab_size // num_experts)).unsqueeze(-1)
    offset_keys = _mix(_mix(_mix(stream + 2) + deals) + torch.arange(num_experts))
    offsets = offset_keys.argsort(dim=-1, stable=True)[:, :topk]
    return (place.unsqueeze(-1) + offsets[place // num_experts]) % num_experts


def _mix(numbers: Tensor) -> Tensor:
    """Scatter integers over 32 bits (the finalizer of MurmurHash3); int64, from 0 to 2^32 - 1."""
    # A product may wrap around 64 bits: its low 32 stay right.
    numbers = numbers & LOW_32
    numbers = ((numbers ^ (numbers >> 16)) * 0x85EBCA6B) & LOW_32
    numbers = ((numbers ^ (numbers >> 13)) * 0xC2B2AE35) & LOW_32
    return numbers ^ (numbers >> 16)
