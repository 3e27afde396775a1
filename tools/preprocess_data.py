"""Tokenizes text into the indexed datasets that Megatron trains from.

Reads JSON lines (plain, .gz, .xz, .zst, .bz2), parquet and folders of text, and writes
``PREFIX_text_document.bin`` and ``.idx``, whose common prefix is what ``--data-path`` is given:

    python tools/preprocess_data.py --input corpus.jsonl.zst --output-prefix data/corpus \
        --tokenizer-type HuggingFaceTokenizer --tokenizer-model data/tokenizer \
        --append-eod --workers 8

Documents keep the order of the input. Memory stays at about 1 GB for Megatron's imports, 90 MB a
worker and 80 bytes a document for the index, unless single documents have many megabytes. A run
that fails leaves no output behind.
"""

import argparse
import contextlib
import signal
import sys

from data.errors import DataError
from data.pool import encode_chunks
from data.readers import read_chunks
from data.report import KeyTally, Tally, progress_bar
from data.sources import Source, find_sources
from data.tokenization import SUPPORTED_TYPES, TokenizerSpec, check_options, load_tokenizer
from data.writer import DatasetWriter, check_targets, pair_prefix


def positive(text: str) -> int:
    """Reads a count of at least one."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Reads the command line; flags have the names of Megatron-LM's tool."""
    summary, _, details = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument_group("input").add_argument
    add("--input", nargs="+", required=True, metavar="PATH", help="files and folders")
    add("--json-keys", nargs="+", default=["text"], metavar="KEY", help="keys or columns of text")
    add("--skip-bad", action="store_true", help="pass over bad documents, and count them")
    add("--max-documents", type=positive, metavar="N", help="stop after this many")
    add = parser.add_argument_group("tokenizer").add_argument
    add("--tokenizer-type", required=True, help=f"one of {', '.join(SUPPORTED_TYPES)}")
    add("--tokenizer-model", metavar="PATH", help="a tokenizer's folder, or a .model file")
    add("--vocab-size", type=positive, metavar="N", help="for NullTokenizer")
    add("--tokenizer-hf-no-include-special-tokens", action="store_true", help="as in training")
    add("--append-eod", action="store_true", help="end each document with the eod token")
    add = parser.add_argument_group("output").add_argument
    add("--output-prefix", required=True, metavar="PREFIX", help="path without key and extension")
    add("--overwrite", action="store_true", help="replace output that exists")
    add("--workers", type=positive, default=1, metavar="N", help="processes that tokenize")
    return parser.parse_args(argv)


def check_keys(keys: list[str], sources: list[Source]) -> None:
    """Refuses keys that cannot name an output, or that a text file cannot have."""
    for key in keys:
        if "/" in key or keys.count(key) > 1:
            raise DataError(f"--json-keys {key}: a key names a file, so no slash and no repeats")
    texts = [source.path for source in sources if source.format == "text"]
    if texts and len(keys) > 1:
        raise DataError(f"--json-keys {' '.join(keys)}: {texts[0]} is plain text, which has one")


def write_datasets(
    args: argparse.Namespace, sources: list[Source], tokenizer: TokenizerSpec
) -> Tally:
    """Sends every document from the files through the tokenizer into the output.

    Returns:
        What was read and written.

    Raises:
        DataError: a bad document without ``--skip-bad``, or none at all.
    """
    tally = Tally([KeyTally() for _ in args.json_keys])
    chunks = read_chunks(sources, args.json_keys, args.max_documents)
    encoded = encode_chunks(
        chunks, args.workers, tokenizer, args.json_keys, args.append_eod, args.skip_bad
    )
    with (
        DatasetWriter(args.output_prefix, args.json_keys, tokenizer.dtype) as writer,
        progress_bar(sum(source.num_bytes for source in sources)) as bar,
        contextlib.closing(encoded),
    ):
        for chunk in encoded:
            if chunk.bad and not args.skip_bad:
                raise DataError(f"{chunk.bad[0]} (--skip-bad passes over bad documents)")
            tally.add(chunk)
            for index, key in enumerate(chunk.keys):
                writer.add(index, key.tokens, key.lengths)
            bar.set_postfix_str(tally.speed, refresh=False)
            bar.update(chunk.num_disk_bytes)
        for key, key_tally in zip(args.json_keys, tally.keys, strict=True):
            if not key_tally.num_documents:
                raise DataError(nothing_found(args.input, key, key_tally, tally))
        writer.commit()
    return tally


def nothing_found(inputs: list[str], key: str, key_tally: KeyTally, tally: Tally) -> str:
    """Says why a key's dataset would be empty."""
    first_bad = f", the first at {tally.bad[0]}" if tally.bad else ""
    return (
        f'--input {" ".join(inputs)}: no documents with text under "{key}" '
        f"({key_tally.num_empty} empty, {tally.num_bad} bad{first_bad})"
    )


def run(args: argparse.Namespace) -> None:
    """Does the whole job: the cheap checks first, then the slow imports, then the work."""
    sources, remarks = find_sources(args.input)
    check_keys(args.json_keys, sources)
    check_targets(args.output_prefix, args.json_keys, args.overwrite)
    check_options(args)
    for remark in remarks:
        print(f"note: {remark}", file=sys.stderr)
    tokenizer = load_tokenizer(args)
    if not args.append_eod:
        print("note: without --append-eod documents run into each other", file=sys.stderr)
    tally = write_datasets(args, sources, tokenizer)
    for line in tally.bad_lines():
        print(line, file=sys.stderr)
    for key, key_tally in zip(args.json_keys, tally.keys, strict=True):
        empty = f" ({key_tally.num_empty:,} empty skipped)" if key_tally.num_empty else ""
        print(
            f"{pair_prefix(args.output_prefix, key)}.bin, .idx: {key_tally.num_documents:,} "
            f"documents{empty}, {key_tally.num_tokens:,} tokens as {tokenizer.dtype}"
        )
    print(tally.summary())


def main(argv: list[str] | None = None) -> int:
    """Runs the tool; what the user can mend is one line and no traceback.

    Returns:
        The exit status: 0, 1 after an error, 130 after Ctrl-C.
    """
    args = parse_arguments(argv)
    try:
        run(args)
    except DataError as error:
        print(f"preprocess_data.py: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("preprocess_data.py: interrupted, nothing was written", file=sys.stderr)
        return 130
    return 0


def end_on_sigterm(*_) -> None:
    """Lets a scheduler's SIGTERM clean up like Ctrl-C does."""
    raise SystemExit(128 + signal.SIGTERM)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, end_on_sigterm)
    sys.exit(main())
