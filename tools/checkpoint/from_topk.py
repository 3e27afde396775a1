"""Make a ReMoE model of a TopK one: experts as they are, ReLU routers calibrated on text.

    python tools/checkpoint/from_topk.py mixtral --text corpus.jsonl --output remoe

Takes Mixtral, OLMoE, Qwen2Moe and Qwen3Moe. Prints the loss before and right after, and the mean of
active experts.
"""

import argparse
import sys

from ways_in import command, conversion, folders
from ways_in.families import TOPK
from ways_in.measuring import measure
from ways_in.report import as_json, describe
from ways_in.text import read_sequences
from ways_in.tuning import tune_routers

HINTS = {
    "remoe": "it is a ReMoE model already (set_active_experts.py changes its active experts)",
    **dict.fromkeys(("llama", "qwen3"), "it has no experts: use from_dense.py"),
}


def main(argv: list[str] | None = None) -> int:
    """Parse, make, say what is wrong in one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    command.add_model_options(parser)
    words = parser.parse_args(argv)
    return command.run("from_topk.py", lambda: _make(words))


def _make(words: argparse.Namespace) -> None:
    command.check_numbers(words)
    folders.check_source(words.model, tuple(TOPK), HINTS)
    folders.check_output(words.output)
    model, tokenizer = folders.load(words.model)
    config = model.config
    num_steps, active = command.steps_and_active(
        words, config.num_experts_per_tok, config.num_experts
    )
    text = read_sequences(
        words.text, tokenizer, words.tokens, command.sequence_length(words, model)
    )
    before = measure(model, text.evaluation)
    new, fits = conversion.remoe_from_topk(model, text.calibration, active)
    tune_routers(new, text.calibration, num_steps)
    after = measure(new, text.evaluation)
    print(describe(before, after, [fit.sum_error for fit in fits]))
    folders.save(new, tokenizer, words.output)
    print(as_json(before, after), flush=True)


if __name__ == "__main__":
    sys.exit(main())
