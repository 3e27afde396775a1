"""Tokens a second of `generate` under load, for models in Hugging Face's form, in turns.

    python benchmarks/generation.py runs/three_models/{remoe,moe,dense}-hf --batches 1 8 32

Every model continues the same real text, greedily and to the same length, in batches of each size; the
rounds take all models in turn. Prints the medians, and the ratio of the first model to each other one.
`--server` measures `tools/serve.py`, too, with as many clients at once as
the batch is large.
"""

import argparse
import pydoc_data.topics
import statistics
import time
from pathlib import Path

import torch
from heading import heading
from ratios import ratio_lines, row
from transformers import AutoModelForCausalLM, AutoTokenizer

import remoe.hf  # noqa: F401  registers the model type: no code of a folder is run
from served import Server


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("models", nargs="+", type=Path, help="folders; the first is compared")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--server", action="store_true", help="measure transformers serve, too")
    return parser.parse_args()


class Generation:
    """One model in this process."""

    def __init__(self, folder: Path, args: argparse.Namespace) -> None:
        self.args = args
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        self.model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False)
        self.model.to(device).eval()
        text = "".join(pydoc_data.topics.topics.values())[:200_000]
        self.tokens = self.tokenizer(text, return_tensors="pt").input_ids[0].to(device)

    def prompts(self, batch: int) -> torch.Tensor:
        """``[batch, prompt_tokens]`` of the text, one after another."""
        length = self.args.prompt_tokens
        return self.tokens[: batch * length].view(batch, length)

    def seconds(self, batch: int) -> float:
        """Of one call of `generate`."""
        new = self.args.new_tokens
        prompts = self.prompts(batch)
        begin = time.perf_counter()
        made = self.model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            min_new_tokens=new,
            max_new_tokens=new,
            do_sample=False,
            pad_token_id=0,
        )
        made.sum().item()  # waits for the device
        return time.perf_counter() - begin


def measure(sides: dict[str, Generation], batch: int, rounds: int) -> dict[str, list[list[float]]]:
    """Seconds by model and round, all models in each round; one warm-up each."""
    seconds: dict[str, list[list[float]]] = {name: [] for name in sides}
    for i in range(rounds + 1):
        for name, side in sides.items():
            took = side.seconds(batch)
            if i:
                seconds[name].append([took])
    return seconds


def main() -> None:
    """Measure and print."""
    args = parse_args()
    print(heading(torch.get_num_threads()))
    print(f"prompts of {args.prompt_tokens} tokens, {args.new_tokens} new ones each, greedy\n")
    names = [folder.name for folder in args.models]
    sides = {folder.name: Generation(folder, args) for folder in args.models}
    print(row(["batch", *(f"{name}, tokens/s" for name in names)]))
    print(row(["---"] * (len(names) + 1)))
    lines = []
    for batch in args.batches:
        seconds = measure(sides, batch, args.rounds)
        made = batch * args.new_tokens
        medians = [statistics.median(s for [s] in seconds[name]) for name in names]
        print(row([batch, *(f"{made / median:.0f}" for median in medians)]), flush=True)
        pairs = [(names[0], name) for name in names[1:]]
        lines += [f"batch {batch}: time of {line}" for line in ratio_lines(seconds, pairs)]
    print("\n".join(["", *lines]))
    if args.server:
        for folder in args.models:
            with Server(folder) as server:
                prompts = sides[folder.name].prompts(max(args.batches)).tolist()
                texts = sides[folder.name].tokenizer.batch_decode(prompts)
                for clients in args.batches:
                    rate = server.tokens_per_second(texts, clients, args.new_tokens)
                    print(
                        f"{folder.name}: transformers serve, {clients} clients: {rate:.0f} tokens/s"
                    )


if __name__ == "__main__":
    main()
