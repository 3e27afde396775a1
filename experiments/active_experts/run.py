"""Active experts after training: what a threshold is to mean, and how layers are to share them.

    bash experiments/three_models/train.sh
    python tools/checkpoint/convert.py --to hf --input runs/three_models/remoe/checkpoints \
        --tokenizer data/eight/tokenizer --output runs/active_experts/remoe
    python experiments/active_experts/run.py --model runs/active_experts/remoe --text TEXT.jsonl

Writes results.json here: the loss for each meaning, number of active experts and way to share them.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import torch
import torch.nn.functional as F

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[1] / "tools" / "checkpoint")]

from ways_in import folders
from ways_in.measuring import measure, record_inputs, routers_of
from ways_in.text import read_sequences
from ways_in.thresholds import find_thresholds, set_thresholds

ACTIVE = (0.4, 0.6, 0.8, 1.25, 1.5, 2.0, 3.0)


def hard(logits, t, scale):
    """Gates above t as they are."""
    return torch.where(logits > t, logits.relu(), 0)


def soft(logits, t, scale):
    """ReLU(logits - t)."""
    return (logits - t).relu()


def soft_by_layer(logits, t, scale):
    """ReLU(logits - t), times a number a layer that keeps the mean sum of gates."""
    return scale * (logits - t).relu()


def soft_by_token(logits, t, scale):
    """ReLU(logits - t), times a number a token that keeps its sum of gates."""
    probs = (logits - t).relu()
    sums = probs.sum(dim=1, keepdim=True).clamp(min=torch.finfo(probs.dtype).tiny)
    return probs * logits.relu().sum(dim=1, keepdim=True) / sums


MEANINGS = {"hard": hard, "soft": soft, "soft, scaled by layer": soft_by_layer}
MEANINGS["soft, scaled by token"] = soft_by_token


def main() -> None:
    """Measure every combination."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=24576)
    parser.add_argument("--sequence-length", type=int, default=128)
    words = parser.parse_args()
    model, tokenizer = folders.load(words.model)
    text = read_sequences(words.text, tokenizer, words.tokens, words.sequence_length)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
    rows, result = [], {"commit": commit.stdout.strip(), "tokens": words.tokens}
    routers = routers_of(model)
    set_thresholds(model, [0.0] * len(routers))
    result["as trained"] = measure(model, text.evaluation)._asdict()
    for shares in ("one", "even"):
        for active in ACTIVE:
            thresholds = find_thresholds(model, text.calibration, active, shares)
            states = record_inputs(model, routers, text.calibration)
            for meaning, gates in MEANINGS.items():
                if shares == "even" or (meaning == "hard" and active > 1):
                    continue  # logits below 0 are no gates
                row = {"shares": shares, "asked": active, "meaning": meaning}
                row |= measured(model, states, thresholds, gates, text.evaluation)
                rows.append(row)
                print(json.dumps(row), flush=True)
            if shares == "even":
                row = {"shares": shares, "asked": active, "meaning": "as built"}
                row |= measure(model, text.evaluation)._asdict()
                rows.append(row)
                print(json.dumps(row), flush=True)
    result["rows"] = rows
    (HERE / "results.json").write_text(json.dumps(result, indent=1) + "\n")


def measured(model, states, thresholds, gates, sequences) -> dict:
    """The loss with another meaning of the thresholds."""
    routers = routers_of(model)
    for router, x, t in zip(routers, states, thresholds, strict=True):
        logits = F.linear(x, router.weight.detach())
        scale = logits.relu().sum() / (logits - t).relu().sum()

        def forward(hidden, router=router, t=t, scale=scale):
            logits = F.linear(hidden, router.weight)
            probs = gates(logits, t, scale)
            return logits, probs, probs > 0

        router.forward = forward
    found = measure(model, sequences)
    for router in routers:
        del router.forward
    return found._asdict()


if __name__ == "__main__":
    main()
