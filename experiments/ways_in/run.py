"""Ways in: a dense and a TopK model become ReMoE models, by calibration and by naive ways.

    bash experiments/three_models/train.sh
    for m in dense moe; do python tools/checkpoint/convert.py --to hf --output runs/ways_in/$m \
        --input runs/three_models/$m/checkpoints --tokenizer data/eight/tokenizer; done
    python experiments/ways_in/run.py --models runs/ways_in --corpus data/eight/corpus

Measures loss before, right after, and after a short training of all weights, beside the same training
of the model that it was made of. Writes results.json here after each row.
"""

import argparse
import json
import math
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[1] / "tools" / "checkpoint")]

from remoe.calibration import threshold_for_active_experts
from remoe.hf import reset_counts, step_controller
from ways_in import conversion, folders
from ways_in.families import topk_gates
from ways_in.measuring import measure, record_inputs, routers_of
from ways_in.text import read_sequences
from ways_in.tuning import tune_routers

NUM_EXPERTS, TOPK, LENGTH, BATCH = 8, 1, 128, 8
LR, MULTIPLIER = 3e-4, 1.05


def main() -> None:
    """Run every row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--tune-steps", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=32768)
    parser.add_argument(
        "--way", default="", help="only ways with this in their name; other rows stay"
    )
    words = parser.parse_args()
    study = Study(words)
    study.run("dense", dense_ways(words))
    study.run("moe", topk_ways(words))


class Study:
    """The rows that are done, and the text."""

    def __init__(self, words: argparse.Namespace) -> None:
        self.words, self.rows = words, []
        if words.way:
            self.rows = json.loads((HERE / "results.json").read_text())["rows"]
        _, tokenizer = folders.load(words.models / "dense")
        self.calibration = mixed(words.corpus, "train", tokenizer, words.tokens)
        self.training = mixed(words.corpus, "train", tokenizer, words.steps * BATCH * LENGTH, 1)
        self.evaluation = mixed(words.corpus, "valid", tokenizer, 16384)

    def run(self, name: str, ways: dict) -> None:
        """All ways from one model."""
        for way, make in ways.items():
            if self.words.way not in way:
                continue
            start = time.time()
            torch.manual_seed(0)
            model, _ = folders.load(self.words.models / name)
            model = make(model, self.calibration)
            made = time.time() - start
            after = measure(model, self.evaluation)
            train(model, self.training)
            trained = measure(model, self.evaluation)
            row = {"from": name, "way": way, "commit": commit(), "seconds_to_make": round(made, 1)}
            for when, found in (("right_after", after), ("trained", trained)):
                row |= {f"loss_{when}": found.loss, f"active_{when}": found.mean_active}
            row["by_layer_trained"] = trained.active_experts
            print(json.dumps(row), flush=True)
            names = [(old["from"], old["way"]) for old in self.rows]
            if (name, way) in names:
                self.rows[names.index((name, way))] = row
            else:
                self.rows.append(row)
            self.save()

    def save(self) -> None:
        """Write what there is."""
        options = {name: str(value) for name, value in vars(self.words).items() if name != "way"}
        result = {"options": options, "rows": self.rows}
        (HERE / "results.json").write_text(json.dumps(result, indent=1) + "\n")


def commit() -> str:
    """Of the working tree."""
    found = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return found.stdout.strip()


def mixed(corpus: Path, split: str, tokenizer, num_tokens: int, part: int = 0) -> torch.Tensor:
    """Sequences of all domains, shuffled; part 1 has other ones than part 0."""
    rows = []
    for path in sorted(corpus.glob(f"*.{split}.jsonl")):
        share = math.ceil(num_tokens / 8)
        found = read_sequences(path, tokenizer, 2 * share if split == "train" else share, LENGTH)
        own = found.calibration
        half = len(own) // 2
        own = own if split == "valid" else own[:half] if part == 0 else own[half:]
        rows.append(own[: math.ceil(share / LENGTH)])
    rows = torch.cat(rows)
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]


def train(model, sequences: torch.Tensor) -> None:
    """All weights, AdamW, the controller where there are routers."""
    is_remoe = bool(routers_of(model))
    if is_remoe:
        model.config.reg_coeff_multiplier = MULTIPLIER
        reset_counts(model)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.01)
    batches = sequences.split(BATCH)
    warmed = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min(1, (i + 1) / 10) * (1 - 0.9 * i / len(batches))
    )
    for batch in batches:
        optimizer.zero_grad()
        model(input_ids=batch, labels=batch, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        warmed.step()
        if is_remoe:
            step_controller(model)
    model.eval()


def with_routers(new, weights: list[torch.Tensor]):
    """A new model with other routers."""
    with torch.no_grad():
        for router, weight in zip(routers_of(new), weights, strict=True):
            router.weight.copy_(weight)
    return new


def dense_ways(words: argparse.Namespace) -> dict:
    """From a dense model, the naive ones first."""

    def fitted(model, text, active: float, num_steps: int = 0):
        new, _ = conversion.remoe_from_dense(model, text, NUM_EXPERTS, TOPK, active)
        tune_routers(new, text, num_steps)
        return new

    def random(model, text, is_scaled: bool):
        new = fitted(model, text[:64], TOPK)
        states = record_inputs(model, [layer.mlp for layer in model.model.layers], text)
        weights = [0.01 * torch.randn_like(router.weight) for router in routers_of(new)]
        if is_scaled:
            pairs = zip(weights, states, strict=True)
            weights = [w / (x @ w.T).relu().sum(dim=1).mean() for w, x in pairs]
        return with_routers(new, weights)

    return {
        "the dense model itself": lambda model, text: model,
        "random router": lambda model, text: random(model, text, False),
        "random router, scaled to a sum of 1": lambda model, text: random(model, text, True),
        "fitted to k": lambda model, text: fitted(model, text, TOPK),
        "fitted to 1.5 k": lambda model, text: fitted(model, text, 1.5 * TOPK),
        "fitted to 1.5 k, tuned to k": lambda model, text: fitted(
            model, text, 1.5 * TOPK, words.tune_steps
        ),
    }


def topk_ways(words: argparse.Namespace) -> dict:
    """From a TopK model, the naive ones first."""

    def fitted(model, text, active: float, num_steps: int = 0):
        new, _ = conversion.remoe_from_topk(model, text, active)
        tune_routers(new, text, num_steps)
        return new

    def as_is(model, text, is_shifted: bool):
        old = [layer.mlp.gate.weight.detach().clone() for layer in model.model.layers]
        states = record_inputs(model, [layer.mlp for layer in model.model.layers], text)
        new = fitted(model, text[:64], TOPK)
        if not is_shifted:
            return with_routers(new, old)
        pairs = zip(old, states, strict=True)
        return with_routers(new, [shifted(model.config, w, x) for w, x in pairs])

    return {
        "the TopK model itself": lambda model, text: model,
        "its router with ReLU": lambda model, text: as_is(model, text, False),
        "its router, shifted and scaled": lambda model, text: as_is(model, text, True),
        "fitted to k": lambda model, text: fitted(model, text, TOPK),
        "fitted to 1.5 k": lambda model, text: fitted(model, text, 1.5 * TOPK),
        "fitted to 1.5 k, tuned to k": lambda model, text: fitted(
            model, text, 1.5 * TOPK, words.tune_steps
        ),
    }


def shifted(config, weight: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """Moved along b with b.x ~ 1 until k experts are active; scaled to the mean sum of the gates."""
    constant = torch.linalg.lstsq(states, torch.ones(len(states), 1)).solution[:, 0]
    scores = (states @ weight.T) / (states @ constant).clamp(min=0.1)[:, None]
    weight = weight - threshold_for_active_experts(scores, TOPK) * constant
    wanted = topk_gates(config, F.linear(states, weight)).sum(dim=1).mean()
    return weight * wanted / (states @ weight.T).relu().sum(dim=1).mean()


if __name__ == "__main__":
    main()
