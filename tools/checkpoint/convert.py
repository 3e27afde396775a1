"""Convert a checkpoint between Megatron's torch_dist form and Hugging Face form.

    python tools/checkpoint/convert.py --to hf --input checkpoints --output exported
    python tools/checkpoint/convert.py --to megatron --input exported --output checkpoints

ReMoE, TopK and dense models of any parallel layout, on a CPU, a layer at a time; killed in the middle,
the same command goes on. It ends with both forms computing on real text; above tolerance it fails and
leaves nothing. docs/huggingface.md says more.
"""

import argparse
import sys
import warnings
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    """Parse, convert, say what is wrong in one line."""
    words = _parse(argv)
    try:
        _convert(words)
    except (ValueError, OSError) as error:
        print(f"convert.py: {error}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        print("convert.py: interrupted; the same command goes on", file=sys.stderr, flush=True)
        return 130
    print(f"{words.output}: converted", flush=True)
    return 0


def _convert(words: argparse.Namespace) -> None:
    warnings.simplefilter("ignore", UserWarning)  # of Megatron's imports, about other uses
    from megatron.remoe import cpu

    cpu.enable()  # before anything of megatron.training is imported
    from megatron.remoe.conversion.options import DTYPES, Options, bytes_of
    from megatron.remoe.conversion.to_hugging_face import to_hugging_face
    from megatron.remoe.conversion.to_megatron import to_megatron

    options = Options(
        input=words.input,
        output=words.output,
        ckpt_step=words.ckpt_step,
        tokenizer=words.tokenizer,
        dtype=DTYPES.get(words.dtype),
        max_shard_size=bytes_of(words.max_shard_size),
        text=words.text,
        tolerance=words.tolerance,
        transformer_impl=words.transformer_impl,
        divisible_by=words.make_vocab_size_divisible_by,
    )
    convert = to_hugging_face if words.to == "hf" else to_megatron
    convert(options)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--to", choices=["hf", "megatron"], required=True, help="the form to convert to")
    add("--input", type=Path, required=True, help="what --load names, or a Hugging Face folder")
    add("--output", type=Path, required=True, help="a new folder")
    add("--ckpt-step", type=int, help="iteration of Megatron's; default: the newest")
    add("--tokenizer", type=Path, help="folder of the tokenizer; default: the model's own")
    add(
        "--dtype",
        choices=["same", "float32", "bfloat16", "float16"],
        default="same",
        help="of the weights that are written; lambda stays float32",
    )
    add("--max-shard-size", default="5GB", help="of a file")
    add("--text", type=Path, help="for the check; default: prose of Python's own documentation")
    add("--tolerance", type=float, default=1e-4, help="largest difference of a logit in float32")
    add(
        "--transformer-impl",
        choices=["local", "transformer_engine"],
        help="to Megatron: whose names; default: the model's own, else local",
    )
    add(
        "--make-vocab-size-divisible-by",
        type=int,
        help="to Megatron: pads the vocabulary; default: as the model had it, else 128",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
