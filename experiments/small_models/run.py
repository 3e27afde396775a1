"""Dense, TopK and ReMoE at a size that two CPU cores train; writes results.json and prints the table.

    make quickstart                                  # once: builds the text and the tokenizer
    .venv/bin/python experiments/small_models/run.py [--steps 300] [--seeds 1 2 3]

The data is a blend of the quickstart's domains with equal weights, each split into 95 % training
and 5 % validation.

Every run is `scripts/train_llama_tiny.sh` (4 layers, hidden 128, FFN 512, same data order for a seed).
A finished run is not repeated. One ReMoE run is trained twice to see that it repeats bit for bit.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import numpy as np

from run_log.scalars import RunLog, read_scalars
from run_log.stages import find_stages
from table import markdown_table

# The comparison: METHOD, experts, k, granularity; every model activates one dense FFN's width a token.
COMPARED = {
    "dense": ("dense", None, 1, 1),
    "TopK E=8 k=1": ("moe", 8, 1, 1),
    "ReMoE E=8 k=1": ("remoe", 8, 1, 1),
}
# How sparsity holds, at twice the batch.
CONTROLLED = {
    "ReMoE E=8 k=1, 32 sequences": ("remoe", 8, 1, 1),
    "ReMoE E=16 k=2, 32 sequences": ("remoe", 16, 2, 1),
    "ReMoE E=8 k=1 G=2, 32 sequences": ("remoe", 8, 1, 2),
}
REPEATED = "ReMoE E=8 k=1, 32 sequences"


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--data", type=Path, default=ROOT / "data/quickstart")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs/small_models")
    return parser.parse_args()


def index_domains(data: Path) -> str:
    """Index each domain of the quickstart's text; return the blend for `--data-path`."""
    blend = []
    for text in sorted((data / "corpus").glob("*.train.jsonl")):
        prefix = data / "indexed" / f"study.{text.name.split('.')[0]}"
        blend += ["1", f"{prefix}_text_document"]
        if prefix.with_name(f"{prefix.name}_text_document.idx").exists():
            continue
        tokenizer = [
            "--tokenizer-type",
            "HuggingFaceTokenizer",
            "--tokenizer-model",
            data / "tokenizer",
        ]
        command = [sys.executable, ROOT / "tools/preprocess_data.py", "--input", text]
        command += ["--output-prefix", prefix, *tokenizer, "--append-eod"]
        subprocess.run(command, check=True)
    if not blend:
        sys.exit(f"run.py: no text in {data / 'corpus'}: run make quickstart first")
    return " ".join(blend)


def train(name: str, seed: int, folder: Path, blend: str, args: argparse.Namespace) -> RunLog:
    """Train one model unless it is there; return its log."""
    method, experts, topk, granularity = (COMPARED | CONTROLLED)[name]
    batch = "32" if name in CONTROLLED else "16"
    done = folder / "done"
    if not done.exists():
        print(f"training {name}, seed {seed}", flush=True)
        environment = {
            "METHOD": method,
            "TOPK": str(topk),
            "SEED": str(seed),
            "SEQ_LENGTH": "128",
            "GLOBAL_BATCH_SIZE": batch,
            "L1_COEFF_INIT": "1e-5",
            "L1_COEFF_MULTIPLIER": "1.05",
            "OMP_NUM_THREADS": "1",
            "EVAL_INTERVAL": str(max(args.steps // 3, 1)),
            "EVAL_ITERS": "40",
            "SAVE_INTERVAL": "100000",
            "DATA_PATH": blend,
            "TOKENIZER_MODEL": str(args.data / "tokenizer"),
            "RUN_ROOT": str(folder),
            "EXTRA_ARGS": "--tensorboard-log-interval 1 --num-workers 0 --split 95,5,0",
        }
        position = ["1", str(args.steps), "16", str(experts or ""), str(granularity)]
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "log").open("w") as log:
            command = ["bash", str(ROOT / "scripts/train_llama_tiny.sh"), *position]
            path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
            env = {**os.environ, **environment, "PATH": path}
            if subprocess.run(command, env=env, stdout=log, stderr=log, check=False).returncode:
                sys.exit(f"run.py: {name}, seed {seed} failed; see {folder / 'log'}")
        done.touch()
    return read_scalars(folder)


def measure(run: RunLog) -> dict:
    """What the table says of a run."""
    steps, validation = run.curves["lm loss validation"]
    result = {"validation": dict(zip(steps.tolist(), validation.tolist(), strict=True))}
    if "moe_relu_sparsity" in run.curves:
        steps, sparsity = run.curves["moe_relu_sparsity"]
        stages = find_stages(steps, sparsity, run.target_sparsity)
        settled = stages.settled
        result["target"] = run.target_sparsity
        result["settled"] = settled
        if settled is not None:
            after = abs(sparsity[steps >= settled] - run.target_sparsity)
            smooth = np.convolve(sparsity[steps >= settled], np.full(20, 1 / 20), mode="valid")
            result["mean_distance"] = float(after.mean())
            result["max_distance"] = float(after.max())
            result["max_distance_of_20_step_mean"] = float(abs(smooth - run.target_sparsity).max())
            result["within_0.02"] = float((after <= 0.02).mean())
        result["active_experts"] = run.last("moe_relu_active_experts")
        result["dead_experts"] = run.last("moe_relu_dead_experts")
    return result


def repeats(first: RunLog, second: RunLog) -> bool:
    """Whether two runs logged the same bits."""
    names = (
        "lm loss",
        "lm loss validation",
        "grad-norm",
        "moe_relu_sparsity",
        "moe_relu_l1_reg_coeff",
    )
    return all((first.curves[n][1] == second.curves[n][1]).all() for n in names)


def main() -> None:
    """Train what is missing, then write the results."""
    args = parse_args()
    blend = index_domains(args.data)
    jobs = [(name, seed, f"seed{seed}") for seed in args.seeds for name in COMPARED]
    jobs += [(name, args.seeds[0], f"seed{args.seeds[0]}") for name in CONTROLLED]
    jobs.append((REPEATED, args.seeds[0], f"seed{args.seeds[0]}_again"))

    def run(job: tuple[str, int, str]) -> RunLog:
        name, seed, label = job
        plain = name.replace(" ", "_").replace("=", "").replace(",", "")
        return train(name, seed, args.runs / plain / label, blend, args)

    with ThreadPoolExecutor(args.jobs) as pool:
        logs = dict(zip(jobs, pool.map(run, jobs), strict=True))
    results: dict[str, dict] = {}
    for name, seed, label in jobs[:-1]:
        results.setdefault(name, {})[str(seed)] = measure(logs[name, seed, label])
    first = logs[REPEATED, args.seeds[0], f"seed{args.seeds[0]}"]
    report = {
        "command": " ".join(["experiments/small_models/run.py", *sys.argv[1:]]),
        "commit": subprocess.check_output(
            ["git", "rev-parse", "HEAD"], cwd=ROOT, text=True
        ).strip(),
        "steps": args.steps,
        "repeats_bit_for_bit": repeats(first, logs[jobs[-1]]),
        "results": results,
    }
    (HERE / "results.json").write_text(json.dumps(report, indent=1) + "\n")
    print(markdown_table(report))


if __name__ == "__main__":
    main()
