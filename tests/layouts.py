"""The layouts that must change nothing, as the flags of `pretrain_gpt.py`."""

import shlex
from dataclasses import dataclass

# Of every run, besides the number of layers.
SHAPE = (
    "--hidden-size 32 --ffn-hidden-size 64 --num-attention-heads 4 "
    "--group-query-attention --num-query-groups 2 --seq-length 32 --max-position-embeddings 32 "
    "--micro-batch-size 2 --lr 1e-3 --lr-decay-style constant "
    "--swiglu --normalization RMSNorm --position-embedding-type rope --disable-bias-linear "
    "--attention-dropout 0 --hidden-dropout 0 --untie-embeddings-and-output-weights --eval-iters 0 "
    "--eval-interval 1000 --log-interval 1000 --num-workers 0 --tokenizer-type "
    "NullTokenizer --vocab-size 127 --make-vocab-size-divisible-by 32 --disable-gloo-process-groups "
    "--dist-ckpt-optim-fully-reshardable --num-experts 8"
)
# A coefficient from which sparsity reaches its target of 0.75 within the 30 steps before the start.
RELU = "--moe-relu-routing --moe-router-topk 2 --moe-relu-l1-reg-coeff-init 1e-2"
TOPK = "--moe-router-topk 2 --moe-router-load-balancing-type aux_loss --moe-aux-loss-coeff 0.01"
DISTRIBUTED = "--use-distributed-optimizer"

# What is trained, besides `SHAPE` and `RELU`.
MODELS = {
    "": "",
    "four layers": "--num-layers 4",
    "dense layers between": "--num-layers 4 --moe-layer-freq [0,1,1,0]",
    "shared expert": "--moe-shared-expert-intermediate-size 32",
    "granularity 2": "--moe-granularity 2",
    "plain L1": "--moe-relu-load-balancing none",
    "loss per token": "--calculate-per-token-loss --eod-mask-loss",
    # at most 2 experts a token until step 47, then 3
    "capped, warmed up": "--moe-relu-max-active-experts 2 --moe-relu-cap-steps 282 "
    "--moe-relu-l1-reg-coeff-warmup-multiplier 2",
    "batch ramp": "--train-samples 400 --step-batch-size-schedule '0:4 5120:8'",
}


def command(*flags: str) -> list[str]:
    """`SHAPE` with these flags, 50 steps long, as a list of words."""
    words = [word for part in (SHAPE, *flags) for word in shlex.split(part)]
    if "--num-layers" not in words:
        words += ["--num-layers", "2"]
    if "--step-batch-size-schedule" not in words:
        return [*words, "--global-batch-size", "8", "--train-iters", "50"]
    return words if "--exit-interval" in words else [*words, "--exit-interval", "50"]


@dataclass(frozen=True)
class Layout:
    """One way to spread, or to compute, the same training.

    Attributes:
        name: As the table in the docs names it.
        ranks: Processes.
        flags: That ask for it.
        model: Key of `MODELS`.
    """

    name: str
    ranks: int
    flags: str
    model: str = ""

    @property
    def is_distributed(self) -> bool:
        """Whether it has the distributed optimizer, whose checkpoints are of a kind of their own."""
        return DISTRIBUTED in self.flags

    def __str__(self) -> str:
        return self.name


OVERLAP = f"{DISTRIBUTED} --overlap-grad-reduce --overlap-param-gather"
TP2 = "--tensor-model-parallel-size 2 --sequence-parallel"
CP2 = "--context-parallel-size 2"
PP2 = "--pipeline-model-parallel-size 2"
EP2 = "--expert-model-parallel-size 2 --moe-token-dispatcher-type alltoall"
EP4 = "--expert-model-parallel-size 4 --moe-token-dispatcher-type alltoall"
FULL = "--recompute-granularity full --recompute-method uniform --recompute-num-layers 1"

GROUPED = "--moe-grouped-gemm"

LAYOUTS = (
    Layout("DP 2", 2, ""),
    Layout("DP 2, distributed optimizer", 2, DISTRIBUTED),
    Layout("TP 2 with sequence parallelism, experts TP 2", 2, TP2),
    Layout("TP 2, experts TP 1", 2, f"{TP2} --expert-tensor-parallel-size 1"),
    Layout("TP 2 x EP 2", 2, f"{TP2} --expert-tensor-parallel-size 1 {EP2}"),
    Layout("EP 2, alltoall", 2, EP2),
    Layout("EP 2, allgather", 2, EP2.replace("alltoall", "allgather")),
    Layout("PP 2", 2, PP2),
    Layout(
        "PP 2, stages of 1 and 3 layers",
        2,
        f"{PP2} --decoder-first-pipeline-num-layers 1",
        "four layers",
    ),
    Layout(
        "PP 2, virtual stages",
        2,
        f"{PP2} --num-layers-per-virtual-pipeline-stage 1",
        "four layers",
    ),
    Layout("CP 2", 2, CP2),
    Layout("CP 2 x EP 2", 2, f"{CP2} {EP2}"),
    Layout("DP 4", 4, ""),
    Layout("DP 4, distributed optimizer, overlapped", 4, OVERLAP),
    Layout("DP 4 x EP 2, distributed optimizer, overlapped", 4, f"{EP2} {OVERLAP}"),
    Layout("EP 4, alltoall", 4, EP4),
    Layout("EP 4, allgather", 4, EP4.replace("alltoall", "allgather")),
    Layout("EP 2 x PP 2", 4, f"{EP2} {PP2}"),
    Layout("TP 2 x PP 2", 4, f"{TP2} {PP2}"),
    Layout("TP 2 x EP 2, experts TP 2", 4, f"{TP2} {EP2}"),
    Layout(
        "TP 2 x CP 2 x EP 4, experts TP 1, distributed optimizer",
        4,
        f"{TP2} {CP2} {EP4} --expert-tensor-parallel-size 1 {DISTRIBUTED}",
    ),
    Layout("PP 4", 4, "--pipeline-model-parallel-size 4", "four layers"),
    Layout("full recompute, EP 2", 2, f"{FULL} {EP2}"),
    Layout("recompute of attention, TP 2", 2, f"--recompute-granularity selective {TP2}"),
    Layout(
        "recompute of MoE layers, EP 2",
        2,
        f"--recompute-granularity selective --recompute-modules moe {EP2}",
    ),
    Layout(
        "tokens in chunks, DP 4 x EP 2, distributed optimizer, overlapped",
        4,
        f"--moe-relu-chunk-above 1 {EP2} {OVERLAP}",
    ),
    Layout("dense layers between, uneven PP 2", 2, PP2, "dense layers between"),
    Layout("shared expert, EP 2", 2, EP2, "shared expert"),
    Layout("granularity 2, EP 2", 2, EP2, "granularity 2"),
    Layout("plain L1, CP 2", 2, CP2, "plain L1"),
    Layout("loss per token, masked, CP 2", 2, CP2, "loss per token"),
    Layout("loss per token, masked, DP 2 x EP 2", 2, EP2, "loss per token"),
    Layout("batch ramp, DP 2", 2, "", "batch ramp"),
    Layout("capped, lambda warmed up, EP 2", 2, EP2, "capped, warmed up"),
    # From and to checkpoints of `SequentialMLP`.
    Layout(
        "grouped experts, TP 2 x EP 2, experts TP 2, distributed optimizer",
        4,
        f"{TP2} {EP2} {DISTRIBUTED} {GROUPED}",
    ),
)
