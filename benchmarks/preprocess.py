"""Tokenizes the same files with tools/preprocess_data.py and with `datasets.map`: MB/s and peak memory.

    pip install '.[data,bench]'
    python tools/prepare_corpus.py --output data/corpus --mb-per-domain 10
    python tools/make_gpt2_tokenizer.py --output-dir data/gpt2_tokenizer
    python benchmarks/preprocess.py --mb 10 100

Each side is a command of its own, timed from its start to its end; they run in turn, and medians are
printed. Ours writes Megatron's indexed datasets and waits until they are on the disk, `datasets` writes
Arrow files that Megatron cannot train from. Ends with code 1 if the ids of the two differ.
"""

import argparse
import importlib.util
import json
import shutil
import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from process_tree import Usage, measure
from tokenized import Tokens, read_arrow, read_megatron, write_text

ROOT = Path(__file__).resolve().parents[1]
SIDES = ("preprocess_data.py", "datasets.map")
# No look-ups on a network; and --workers, not the tokenizer's threads, says how many cores are used.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass
class Result:
    """What one side did with one file, run after run."""

    num_mb: float
    usages: list[Usage] = field(default_factory=list)
    tokens: Tokens | None = None

    def median(self, name: str) -> float:
        """Median over the runs of one field of their usage."""
        return statistics.median(getattr(usage, name) for usage in self.usages)

    @property
    def seconds(self) -> float:
        """Wall time."""
        return self.median("seconds")

    @property
    def peak_mb(self) -> float:
        """Memory."""
        return self.median("peak_mb")


Pair = tuple[Result, Result]  # ours, theirs


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--mb", type=float, nargs="+", default=[10, 100], help="sizes in 10^6 bytes (add 1000)")
    add("--workers", type=int, default=2, help="processes that tokenize, on both sides")
    add("--runs", type=int, default=3, help="of each side and size, one side after the other")
    add(
        "--text",
        type=Path,
        nargs="+",
        default=sorted((ROOT / "data/corpus").glob("*.train.jsonl")),
        help="JSON lines with a key text, taken in turn and repeated up to the size",
    )
    add("--tokenizer", type=Path, default=ROOT / "data/gpt2_tokenizer", help="a folder")
    add("--folder", type=Path, help="where to write (default: a temporary folder)")
    return parser.parse_args(argv)


def check(args: argparse.Namespace) -> None:
    """Ends with one line where something that is needed is not there."""
    if importlib.util.find_spec("datasets") is None:
        sys.exit("preprocess.py: Hugging Face's datasets is missing: pip install '.[data,bench]'")
    for path in [args.tokenizer, *args.text]:
        if not path.exists():
            sys.exit(f"preprocess.py: {path} is missing; --help says how it is made")
    if not args.text:
        sys.exit("preprocess.py: no data/corpus/*.train.jsonl; make it, or pass --text")


def command_of(side: str, text: Path, args: argparse.Namespace, folder: Path) -> list[object]:
    """The command that tokenizes a file into a folder."""
    if side == SIDES[0]:
        command = [ROOT / "tools/preprocess_data.py", "--output-prefix", folder / "out"]
        command += ["--tokenizer-type", "HuggingFaceTokenizer", "--append-eod"]
        command += ["--tokenizer-model", args.tokenizer]
    else:
        command = [ROOT / "benchmarks/hugging_face_map.py", "--cache", folder]
        command += ["--tokenizer", args.tokenizer]
    return [sys.executable, *command, "--input", text, "--workers", args.workers]


def run_side(side: str, text: Path, args: argparse.Namespace, result: Result) -> None:
    """Runs one side once, in an empty folder that is removed afterwards."""
    with tempfile.TemporaryDirectory(dir=text.parent) as name:
        folder = Path(name)
        environment = ENVIRONMENT | {"HF_HOME": str(folder / "home")}
        usage = measure(command_of(side, text, args, folder), environment)
        if not result.usages:  # the ids are the same in every run
            ours = side == SIDES[0]
            result.tokens = (
                read_megatron(folder / "out_text_document")
                if ours
                else read_arrow(json.loads(usage.stdout))
            )
    result.usages.append(usage)
    print(f"{result.num_mb:.0f} MB, {side}: {usage.seconds:.1f} s", file=sys.stderr, flush=True)


def compare(num_mb: float, args: argparse.Namespace, folder: Path) -> Pair:
    """Runs both sides in turn on a file of one size."""
    text = folder / "text.jsonl"
    copies = write_text(args.text, int(num_mb * 1e6), text)
    print(f"{num_mb:.0f} MB: {copies:.2f} times the given text", file=sys.stderr)
    size = text.stat().st_size / 1e6
    pair = Result(size), Result(size)
    for _ in range(args.runs):
        for side, result in zip(SIDES, pair, strict=True):
            run_side(side, text, args, result)
    text.unlink()
    return pair


def table(pairs: Sequence[Pair]) -> str:
    """The results as a table in markdown."""
    lines = [
        "| text | command | time | speed | CPU time | peak memory | of it anonymous |",
        "|---|---|---|---|---|---|---|",
    ]
    for pair in pairs:
        for side, result in zip(SIDES, pair, strict=True):
            lines.append(
                f"| {result.num_mb:.0f} MB | `{side}` | {result.seconds:.1f} s | "
                f"{result.num_mb / result.seconds:.2f} MB/s | "
                f"{result.median('cpu_seconds'):.1f} s | {result.peak_mb:,.0f} MB | "
                f"{result.median('peak_anonymous_mb'):,.0f} MB |"
            )
    return "\n".join(lines)


def ratios(pairs: Sequence[Pair]) -> list[str]:
    """Says how the two compare at each size."""
    lines = []
    for ours, theirs in pairs:
        same = "the same ids" if ours.tokens == theirs.tokens else "DIFFERENT IDS"
        cpu = theirs.median("cpu_seconds") / ours.median("cpu_seconds")
        lines.append(
            f"{ours.num_mb:.0f} MB: {theirs.seconds / ours.seconds:.2f} times as fast ({cpu:.2f} by "
            f"CPU time), {ours.peak_mb / theirs.peak_mb:.2f} times the memory; "
            f"{same}, {ours.tokens.num_tokens:,} in {ours.tokens.num_documents:,} documents"
        )
    return lines


def growth(first: Pair, last: Pair) -> list[str]:
    """Says what the text that the larger file has more took, so without imports and other starting."""
    lines = []
    for side, small, large in zip(SIDES, first, last, strict=True):
        num_mb, memory = large.num_mb - small.num_mb, large.peak_mb - small.peak_mb
        wall, cpu = (large.median(name) - small.median(name) for name in ("seconds", "cpu_seconds"))
        lines.append(
            f"{side}: the further {num_mb:.0f} MB took {wall:.1f} s ({num_mb / wall:.2f} MB/s), "
            f"{cpu:.1f} s of CPU and {memory:+,.0f} MB of memory"
        )
    return lines


def main() -> int:
    """Runs, compares, prints."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # cleans up, as Ctrl-C
    args = parse()
    check(args)
    folder = Path(tempfile.mkdtemp(prefix="preprocess_", dir=args.folder))
    try:
        pairs = [compare(num_mb, args, folder) for num_mb in args.mb]
    finally:
        shutil.rmtree(folder)
    print(f"{args.workers} workers, medians of {args.runs} runs\n\n{table(pairs)}\n")
    print("\n".join(ratios(pairs)))
    if len(pairs) > 1:
        print("\n".join(growth(pairs[0], pairs[-1])))
    return 0 if all(ours.tokens == theirs.tokens for ours, theirs in pairs) else 1


if __name__ == "__main__":
    sys.exit(main())
