"""Whole commands, run as a user runs them, for the tests in e2e/."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Of a world that the tests' process may have joined.
OF_A_RANK = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

TINY_MODEL = (
    "--num-layers 2 --hidden-size 64 --ffn-hidden-size 128 --num-attention-heads 4 --seq-length 64 "
    "--max-position-embeddings 64 --micro-batch-size 4 --global-batch-size 8 --lr 1e-3 "
    "--lr-decay-style constant --swiglu --normalization RMSNorm --position-embedding-type rope "
    "--disable-bias-linear --attention-dropout 0 --hidden-dropout 0 "
    "--untie-embeddings-and-output-weights --eval-iters 1 --eval-interval 1000 --log-interval 1 "
    "--num-workers 0 --tensorboard-log-interval 1"
).split()
MOCK_DATA = "--mock-data --tokenizer-type NullTokenizer --vocab-size 512".split()
RELU_MOE = "--moe-relu-routing --num-experts 8 --moe-router-topk 1".split()
TOPK_MOE = (
    "--num-experts 8 --moe-router-topk 1 --moe-router-pre-softmax "
    "--moe-router-load-balancing-type aux_loss --moe-aux-loss-coeff 0.01"
).split()
TRACKER = "latest_checkpointed_iteration.txt"


def run(command: list[str], **environment: str) -> subprocess.CompletedProcess:
    """Run in the repository's root with the interpreter of the tests first on the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {name: value for name, value in os.environ.items() if name not in OF_A_RANK}
    env |= {"PATH": path, **environment}
    return subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600, check=False
    )


def pretrain(*flags: str, ranks: int = 1) -> subprocess.CompletedProcess:
    """`pretrain_gpt.py` with a tiny model, on mock data unless told otherwise, and further flags."""
    launcher = [sys.executable]
    if ranks > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    data = [] if "--data-path" in flags else MOCK_DATA
    return run([*launcher, "pretrain_gpt.py", *TINY_MODEL, *data, *flags])
