#!/usr/bin/env python3
"""Writes text with a checkpoint of either form.

python tools/generate.py exported/ --prompt 'The city of'
python tools/generate.py runs/remoe/checkpoints --temperature 0.8 --top-p 0.95 --seed 3
python tools/generate.py exported/ --show-routing < prompts.txt

Prompts are given by --prompt and --prompt-file, else typed at the terminal, else read one a line from
standard input. Without --temperature each token is the likeliest one.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from evaluation.errors import EvaluationError
from evaluation.loading import add_loading_arguments, loading_of
from generation.prompts import ask, read_prompts

_DIM, _RESET = "\x1b[2m", "\x1b[0m"
_LEAST_TEMPERATURE = 1e-4  # logits divided by much less overflow
_LEAST_SEED = -(2**63)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="Hugging Face folder or Megatron checkpoint")
    parser.add_argument("--prompt", action="append", default=[], metavar="TEXT", help="repeatable")
    parser.add_argument(
        "--prompt-file",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a whole prompt",
    )
    parser.add_argument("--max-new-tokens", type=int, default=64, metavar="N", help="default: 64")
    parser.add_argument(
        "--temperature", type=float, default=0.0, help="0: the likeliest token (default)"
    )
    parser.add_argument("--top-k", type=int, default=0, metavar="K", help="0: off (default)")
    parser.add_argument("--top-p", type=float, default=1.0, metavar="P", help="1: off (default)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument(
        "--show-routing",
        action="store_true",
        help="how many experts each token used: as a colour, or in columns where piped",
    )
    add_loading_arguments(parser)
    return parser.parse_args(argv)


def check_arguments(args: argparse.Namespace) -> None:
    """Refuse numbers that mean nothing, and those that greedy choice would ignore."""
    if args.max_new_tokens < 1:
        raise EvaluationError(f"--max-new-tokens {args.max_new_tokens}: must be at least 1")
    if not args.temperature >= 0:
        raise EvaluationError(f"--temperature {args.temperature:g}: must be 0 or more")
    if 0 < args.temperature < _LEAST_TEMPERATURE:
        raise EvaluationError(
            f"--temperature {args.temperature:g}: must be 0 or at least {_LEAST_TEMPERATURE:g}"
        )
    if not _LEAST_SEED <= args.seed <= -_LEAST_SEED - 1:
        raise EvaluationError(f"--seed {args.seed}: must be a number of 64 bits")
    if args.top_k < 0:
        raise EvaluationError(f"--top-k {args.top_k}: must be 0 (off) or more")
    if not 0 < args.top_p <= 1:
        raise EvaluationError(f"--top-p {args.top_p:g}: must be above 0 and at most 1 (off)")
    if args.temperature == 0 and (args.top_k or args.top_p < 1):
        raise EvaluationError(
            "--top-k and --top-p choose among tokens at random: give --temperature above 0, too"
        )


def write_text(loaded: object, prompt: str, sampling: object, show_routing: bool) -> None:
    """Print the prompt with its continuation; in a terminal as it comes."""
    from transformers import TextStreamer

    from generation.sampling import continue_text, encode

    tokens = encode(loaded, prompt)
    in_terminal = sys.stdout.isatty()
    streamer = None
    if in_terminal and not show_routing:
        print(f"{_DIM}{prompt}{_RESET}", end="", flush=True)
        streamer = TextStreamer(loaded.tokenizer, skip_prompt=True, skip_special_tokens=True)
    output = continue_text(loaded, tokens, sampling, streamer)
    if show_routing:
        _write_routing(loaded, output, in_terminal)
    elif streamer is None:
        print(prompt + loaded.tokenizer.decode(output[len(tokens) :], skip_special_tokens=True))
    sys.stdout.flush()


def _write_routing(loaded: object, tokens: object, in_terminal: bool) -> None:
    from generation.routing_view import coloured, columns, experts_per_token, pieces

    parts = pieces(loaded.tokenizer, tokens.tolist(), experts_per_token(loaded, tokens))
    print(coloured(parts) if in_terminal else columns(parts))


def write_all(args: argparse.Namespace, prompts: Iterable[str], is_typed: bool) -> None:
    """Load the model and answer each prompt; a person may try again after a mistake."""
    from evaluation.models import load
    from generation.sampling import Sampling

    loaded = load(args.model, loading_of(args))
    sampling = Sampling(args.max_new_tokens, args.temperature, args.top_k, args.top_p, args.seed)
    for i, prompt in enumerate(prompts):
        if i:
            print()
        try:
            write_text(loaded, prompt, sampling, args.show_routing)
        except EvaluationError as error:
            if not is_typed:
                raise
            print(f"generate.py: {error}", file=sys.stderr)


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    args = parse_arguments(argv)
    try:
        check_arguments(args)
        prompts = read_prompts(args.prompt, args.prompt_file)
        write_all(args, prompts or ask(), is_typed=not prompts and sys.stdin.isatty())
    except BrokenPipeError:
        return 1
    except (EvaluationError, OSError) as error:
        print(f"generate.py: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
