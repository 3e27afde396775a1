"""Tiny models in both forms for the tests of conversion, and what compares two checkpoints."""

import shlex
from dataclasses import replace
from pathlib import Path

import torch

from megatron.remoe.conversion.architecture import Architecture, Controller, Experts

SHAPE = (
    "--hidden-size 32 --ffn-hidden-size 64 --num-attention-heads 4 --group-query-attention "
    "--num-query-groups 2 --seq-length 32 --max-position-embeddings 32 --micro-batch-size 2 "
    "--global-batch-size 8 --lr 1e-2 --lr-decay-style constant --swiglu --normalization RMSNorm "
    "--position-embedding-type rope --disable-bias-linear --attention-dropout 0 --hidden-dropout 0 "
    "--eval-iters 0 --eval-interval 1000 --log-interval 1000 --num-workers 0 --mock-data "
    "--init-method-std 0.3 --tokenizer-type NullTokenizer --vocab-size 100 "
    "--make-vocab-size-divisible-by 32 --disable-gloo-process-groups --train-iters 3 "
    "--save-interval 3"
)
UNTIED = "--untie-embeddings-and-output-weights"
RELU = (
    "--num-experts 4 --moe-router-topk 1 --moe-relu-routing --moe-relu-l1-reg-coeff-init 1e-2 "
    "--moe-router-dtype fp32"
)
TOPK = "--num-experts 4 --moe-aux-loss-coeff 0.01 --moe-router-load-balancing-type aux_loss"
TP2 = "--tensor-model-parallel-size 2 --sequence-parallel --expert-tensor-parallel-size 1"
EP2 = "--expert-model-parallel-size 2 --moe-token-dispatcher-type alltoall"
PP2 = "--pipeline-model-parallel-size 2"
VPP = f"{PP2} --num-layers-per-virtual-pipeline-stage 1"

# By name: ranks, flags, the Hugging Face architecture.
MODELS = {
    "ReMoE, dense layers between, tied, 1 rank": (
        1,
        f"{RELU} --num-layers 3 --moe-layer-freq [0,1,1] --qk-layernorm --add-qkv-bias",
        "remoe",
    ),
    "ReMoE, gated shared expert, warmed up, grouped, TP 2 x EP 2": (
        4,
        f"{RELU} {UNTIED} --num-layers 2 --moe-shared-expert-intermediate-size 48 {TP2} {EP2} "
        "--moe-shared-expert-gate --moe-relu-l1-reg-coeff-warmup-multiplier 2 --moe-grouped-gemm",
        "remoe",
    ),
    "ReMoE, granularity 2, plain L1, virtual PP 2": (
        2,
        f"{RELU} {UNTIED} --num-layers 4 --moe-granularity 2 --moe-relu-load-balancing none {VPP}",
        "remoe",
    ),
    "TopK, renormalised, EP 2": (
        2,
        f"{TOPK} {UNTIED} --num-layers 2 --moe-router-topk 2 {EP2}",
        "mixtral",
    ),
    "TopK, softmax before, dense layer, CP 2": (
        2,
        f"{TOPK} {UNTIED} --num-layers 2 --moe-router-topk 1 --moe-router-pre-softmax "
        "--moe-layer-freq [0,1] --add-qkv-bias --context-parallel-size 2",
        "qwen2_moe",
    ),
    "TopK, norms of queries and keys, TP 2": (
        2,
        f"{TOPK} {UNTIED} --num-layers 2 --moe-router-topk 2 --qk-layernorm {TP2}",
        "qwen3_moe",
    ),
    "dense, tied, TP 2 x PP 2": (
        4,
        f"--num-layers 2 --tensor-model-parallel-size 2 --sequence-parallel {PP2}",
        "llama",
    ),
}

DENSE = Architecture(
    num_layers=2,
    hidden_size=8,
    ffn_width=12,
    num_heads=4,
    num_groups=2,
    head_dim=4,  # not hidden_size / num_heads
    vocab_size=10,
    padded_vocab_size=16,
    max_positions=32,
    norm_eps=1e-5,
    rope_theta=1e4,
)
TOPK = replace(DENSE, experts=Experts(num_experts=3, topk=2, width=8, layers=(0, 1), relu=False))
REMOE = replace(
    DENSE,
    experts=Experts(
        3, 1, 8, (1, 1), relu=True, shared_width=4, shared_gate=True, thresholds=(0.1, -1e-05)
    ),
    controller=Controller(reached_target=True),
    qkv_bias=True,
    qk_norm=True,
)


def topk(**changes):
    return replace(TOPK, experts=replace(TOPK.experts, **changes))


# By model_type.
FAMILIES = {
    "llama": DENSE,
    "qwen2": replace(DENSE, qkv_bias=True, tied=True),
    "qwen3": replace(DENSE, qk_norm=True),
    "mixtral": topk(layers=(1, 1), renormalised=True),
    "qwen2_moe": TOPK,
    "qwen3_moe": replace(TOPK, qk_norm=True),
    "remoe": REMOE,
}


def words(name: str, folder: Path) -> list[str]:
    """The command line that trains a model of `MODELS` for three steps and saves it."""
    return [*shlex.split(SHAPE), *shlex.split(MODELS[name][1]), "--save", str(folder)]


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a model in torch_dist, by its stored name, as torch's own loader reads it."""
    from torch.distributed.checkpoint import FileSystemReader, load

    from megatron.remoe.conversion.megatron_reader import NOT_THE_MODEL

    index = FileSystemReader(folder).read_metadata().state_dict_metadata
    found = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in index.items()
        if hasattr(entry, "chunks") and not NOT_THE_MODEL.match(name)
    }
    load(found, checkpoint_id=folder, no_dist=True)
    return found


def same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two checkpoints hold the same tensors."""
    assert one.keys() == other.keys(), one.keys() ^ other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


def make_tokenizer(folder: Path, size: int, first: str = "word", lowercase: bool = False) -> None:
    """A tokenizer of whole words."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "the", "a", "of", "to", "and", *(f"{first}{i}" for i in range(size - 6))]
    tokenizer = Tokenizer(models.WordLevel(dict(zip(words, range(size), strict=True)), "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(folder)
