"""Make a ReMoE model of a dense one: experts are copies, routers are calibrated on text.

    python tools/checkpoint/from_dense.py llama --num-experts 8 --topk 1 --text a.jsonl --output remoe

Prints the loss before and right after, and the mean of active experts. Each expert is a copy of its
layer's gated unit, so the layer is as it was where the gates of a token sum to one.
"""

import argparse
import sys

from ways_in import command, conversion, folders
from ways_in.families import DENSE
from ways_in.measuring import measure
from ways_in.report import as_json, describe
from ways_in.text import read_sequences
from ways_in.tuning import tune_routers

HINTS = {
    "remoe": "it is a ReMoE model already (set_active_experts.py changes its active experts)",
    **dict.fromkeys(
        ("mixtral", "olmoe", "qwen2_moe", "qwen3_moe"), "it has experts: use from_topk.py"
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Parse, make, say what is wrong in one line."""
    words = _parse(argv)
    return command.run("from_dense.py", lambda: _make(words))


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    command.add_model_options(parser)
    parser.add_argument("--num-experts", type=int, required=True, metavar="E")
    parser.add_argument("--topk", type=int, required=True, metavar="K", help="target of training")
    return parser.parse_args(argv)


def _make(words: argparse.Namespace) -> None:
    command.check_numbers(words)
    if words.num_experts < 2:
        raise ValueError(f"--num-experts {words.num_experts}: give at least 2")
    if not 1 <= words.topk <= words.num_experts:
        raise ValueError(
            f"--topk {words.topk}: give a number from 1 to --num-experts {words.num_experts}"
        )
    num_steps, active = command.steps_and_active(words, words.topk, words.num_experts)
    folders.check_source(words.model, tuple(DENSE), HINTS)
    folders.check_output(words.output)
    model, tokenizer = folders.load(words.model)
    text = read_sequences(
        words.text, tokenizer, words.tokens, command.sequence_length(words, model)
    )
    before = measure(model, text.evaluation)
    new, fits = conversion.remoe_from_dense(
        model, text.calibration, words.num_experts, words.topk, active
    )
    tune_routers(new, text.calibration, num_steps)
    after = measure(new, text.evaluation)
    print(describe(before, after, [fit.sum_error for fit in fits]))
    folders.save(new, tokenizer, words.output)
    print(as_json(before, after), flush=True)


if __name__ == "__main__":
    sys.exit(main())
