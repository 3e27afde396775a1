"""FLOPs of a training run from the flags of its launch.

A closed form of what Megatron counts (a multiply-add is two, of the attention scores the causal half,
no router): for one token, forward,

- a layer's attention: ``4 h^2 (1 + groups / heads) + 2 s h``,
- an FFN of width f with a gate: ``6 h f``, times the experts that are active,
- the logits: ``2 h V``;

a step is three forward passes, plus what is recomputed.
"""

import math
import os
import shlex
import subprocess
from dataclasses import dataclass

from sweeping.errors import SweepError
from sweeping.runs import Run
from sweeping.vocabulary import REPO

GPT2_VOCABULARY = 50257  # of the recipes' tokenizer
OWN_VOCABULARIES = {
    "nano": 4096,
    "tiny": 4096,
    "small": 8192,
}  # of the tokenizers trained on their text
PASSES = 3  # the forward, and twice its FLOPs in the backward


@dataclass(frozen=True)
class Model:
    """What of a run its FLOPs depend on, as its launch has it.

    Attributes:
        tokens: Of a step.
        num_experts: At granularity 1; 1 for a dense model, as are topk and granularity.
        recomputed: Of a layer: "none", "moe" (its experts) or "full".
    """

    layers: int
    hidden: int
    ffn: int
    heads: int
    groups: int
    sequence: int
    vocabulary: int
    num_experts: int
    topk: int
    steps: int
    tokens: int
    recomputed: str
    gpus: int

    def attention(self) -> float:
        """Forward FLOPs of the attention of all layers, a token."""
        projections = 4 * self.hidden**2 * (1 + self.groups / self.heads)
        return self.layers * (projections + 2 * self.sequence * self.hidden)

    def experts(self, active: float) -> float:
        """Forward FLOPs of all FFNs, a token; `active` in experts of granularity 1."""
        return self.layers * 6 * self.hidden * self.ffn * active

    def step(self, active: float) -> float:
        """FLOPs of one training step."""
        logits = 2 * self.hidden * self.vocabulary
        flops = PASSES * (self.attention() + self.experts(active) + logits)
        if self.recomputed == "moe":
            flops += self.experts(active)
        elif self.recomputed == "full":
            flops += self.attention() + self.experts(active)
        return flops * self.tokens


def model_of(run: Run) -> Model:
    """Ask the recipe what it would launch.

    Raises:
        SweepError: The recipe refuses the run's settings.
    """
    # Data and tokenizer need not be there for an estimate.
    places = {"DRY_RUN": "1", "DATA_PATH": "mock", "VOCAB_SIZE": str(_vocabulary(run))}
    environment = {"PATH": os.environ["PATH"], **run.environment_without_data(), **places}
    result = subprocess.run(
        ["bash", str(run.script)],
        cwd=REPO,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise SweepError(f"{run.name}: {result.stderr.strip()}")
    flags = _flags(shlex.split(result.stdout))
    unit = int(flags["--make-vocab-size-divisible-by"][0])
    return Model(
        layers=int(flags["--num-layers"][0]),
        hidden=int(flags["--hidden-size"][0]),
        ffn=int(flags["--ffn-hidden-size"][0]),
        heads=int(flags["--num-attention-heads"][0]),
        groups=int(flags["--num-query-groups"][0]),
        sequence=int(flags["--seq-length"][0]),
        vocabulary=math.ceil(int(flags["--vocab-size"][0]) / unit) * unit,
        num_experts=int(flags.get("--num-experts", ["1"])[0]),
        topk=int(flags.get("--moe-router-topk", ["1"])[0]),
        steps=int(flags["--train-iters"][0]),
        tokens=int(flags["--global-batch-size"][0]) * int(flags["--seq-length"][0]),
        recomputed=_recomputed(flags),
        gpus=int(flags["--nproc-per-node"][0]) * int(flags.get("--nnodes", ["1"])[0]),
    )


def _vocabulary(run: Run) -> int:
    return int(run.settings.get("VOCAB_SIZE", OWN_VOCABULARIES.get(run.size, GPT2_VOCABULARY)))


def _flags(words: list[str]) -> dict[str, list[str]]:
    """A later flag replaces an earlier one, as in argparse."""
    flags: dict[str, list[str]] = {}
    current: list[str] = []
    for word in words:
        if word.startswith("--"):
            current = flags[word] = []
        else:
            current.append(word)
    return flags


def _recomputed(flags: dict[str, list[str]]) -> str:
    granularity = flags.get("--recompute-granularity", ["none"])[0]
    if granularity == "full":
        return "full"
    return "moe" if "moe" in flags.get("--recompute-modules", []) else "none"
