"""Trains a byte-level BPE tokenizer on the text that preprocess_data.py reads.

Writes a folder with tokenizer.json and tokenizer_config.json, which Transformers' AutoTokenizer
and Megatron load:

    python tools/train_tokenizer.py --input corpus.jsonl.zst --vocab-size 4096 \
        --output data/tokenizer
    ... --tokenizer-type HuggingFaceTokenizer --tokenizer-model data/tokenizer

Every byte has an entry, so any text goes in and comes out unchanged. The same input gives the same
tokenizer.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import closing, suppress

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from data.errors import BadDocumentError, DataError
from data.readers import read_records
from data.records import parse
from data.sources import Source, find_sources

EOD = "<|endoftext|>"
MIN_VOCAB_SIZE = 256 + 1  # the bytes and EOD
# Merges settle on far less text than a model trains on; this takes 20 s on two cores.
DEFAULT_MAX_BYTES = 100_000_000


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    summary, _, details = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--input", nargs="+", required=True, metavar="PATH", help="files and folders")
    add("--json-keys", nargs="+", default=["text"], metavar="KEY", help="keys or columns of text")
    add("--vocab-size", type=int, required=True, help="entries, the 256 bytes and the eod included")
    add("--output", required=True, metavar="FOLDER", help="folder to write")
    add(
        "--max-bytes",
        type=int,
        default=DEFAULT_MAX_BYTES,
        help="text to learn from, an equal share from the head of each file (default: %(default)s)",
    )
    add("--skip-bad", action="store_true", help="pass over bad documents, and count them")
    add("--overwrite", action="store_true", help="replace a tokenizer that exists")
    return parser.parse_args(argv)


def check_arguments(args: argparse.Namespace) -> None:
    """Refuses what cannot work before any text is read.

    Raises:
        DataError: a size that is too small, or an output that is in the way.
    """
    if args.vocab_size < MIN_VOCAB_SIZE:
        raise DataError(
            f"--vocab-size {args.vocab_size} is less than {MIN_VOCAB_SIZE}, the bytes and {EOD}"
        )
    if args.max_bytes < 1:
        raise DataError(f"--max-bytes {args.max_bytes} leaves no text to learn from")
    if os.path.lexists(args.output) and not os.path.isdir(args.output):
        raise DataError(f"--output {args.output} is a file; name a folder")
    if os.path.exists(os.path.join(args.output, "tokenizer.json")) and not args.overwrite:
        raise DataError(f"--output {args.output} holds a tokenizer; pass --overwrite to replace it")


class Sample:
    """A bounded sample of the text: an equal share from each file, in the order of the files.

    What a short file leaves of its share goes to the files after it.

    Args:
        sources: the files.
        keys: the keys of the texts.
        max_bytes: bound on the UTF-8 bytes of the sample.
        skip_bad: whether to pass over bad documents.
    """

    def __init__(self, sources: list[Source], keys: list[str], max_bytes: int, skip_bad: bool):
        self._sources = sources
        self._keys = keys
        self._max_bytes = max_bytes
        self._skip_bad = skip_bad
        self.num_bytes = 0
        self.num_bad = 0

    def __iter__(self) -> Iterator[str]:
        """Yields texts; the last of each share is cut to fit."""
        for index, source in enumerate(self._sources):
            share = (self._max_bytes - self.num_bytes) // (len(self._sources) - index)
            yield from self._read_share(source, share)

    def _read_share(self, source: Source, share: int) -> Iterator[str]:
        """Yields texts from the head of one file."""
        with closing(read_records(source, self._keys)) as records:
            for record, _ in records:
                try:
                    texts = parse(record, self._keys)
                except BadDocumentError as error:
                    if not self._skip_bad:
                        hint = "(--skip-bad passes over bad documents)"
                        raise DataError(f"{record.place}: {error} {hint}") from None
                    self.num_bad += 1
                    continue
                for text in texts:
                    cut = text.encode()[:share]
                    self.num_bytes += len(cut)
                    share -= len(cut)
                    yield cut.decode(errors="ignore")  # the cut may have split a character
                if share <= 0:
                    return


def train(sample: Sample, vocab_size: int) -> Tokenizer:
    """Learns the merges, in GPT-2's form: bytes as characters, words split by GPT-2's pattern.

    Args:
        sample: the text.
        vocab_size: entries at most; a small text may not have that many merges in it.

    Raises:
        DataError: there is no text.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[EOD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=sys.stderr.isatty(),
    )
    tokenizer.train_from_iterator(iter(sample), trainer)
    if not sample.num_bytes:
        raise DataError("--input: no text in any document, so nothing to learn from")
    return tokenizer


def save(tokenizer: Tokenizer, folder: str) -> None:
    """Writes the two files that AutoTokenizer wants, each of them whole or not at all.

    Raises:
        DataError: the folder cannot be written.
    """
    config = {
        # The one class that is in Transformers 4 and, as a name for TokenizersBackend, in 5.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": EOD,
        "eos_token": EOD,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,  # Transformers 4 would drop spaces on decoding
    }
    contents = {
        "tokenizer_config.json": json.dumps(config, indent=2) + "\n",
        "tokenizer.json": tokenizer.to_str(pretty=True) + "\n",
    }
    try:
        os.makedirs(folder, exist_ok=True)
        for name, content in contents.items():
            _replace(os.path.join(folder, name), content)
    except OSError as error:
        raise DataError(f"--output {folder}: cannot be written: {error.strerror}") from error


def _replace(path: str, content: str) -> None:
    """Writes a file beside its target and moves it there."""
    partial = path + ".partial"
    try:
        with open(partial, "w", encoding="utf-8") as file:
            file.write(content)
        os.replace(partial, path)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(partial)


def run(args: argparse.Namespace) -> None:
    """Checks, trains, saves and reports."""
    check_arguments(args)
    sources, remarks = find_sources(args.input)
    for remark in remarks:
        print(f"note: {remark}", file=sys.stderr)
    sample = Sample(sources, args.json_keys, args.max_bytes, args.skip_bad)
    tokenizer = train(sample, args.vocab_size)
    save(tokenizer, args.output)
    if sample.num_bad:
        print(f"skipped {sample.num_bad:,} bad documents", file=sys.stderr)
    num_entries = tokenizer.get_vocab_size()
    if num_entries < args.vocab_size:
        print(f"note: the text has merges for {num_entries} entries only", file=sys.stderr)
    print(
        f"{args.output}: {num_entries:,} entries from {sample.num_bytes / 1e6:,.1f} MB of text, "
        f"end of document {EOD} = {tokenizer.token_to_id(EOD)}"
    )


def main(argv: list[str] | None = None) -> int:
    """Runs the tool; what the user can mend is one line and no traceback.

    Returns:
        The exit status: 0, 1 after an error, 130 after Ctrl-C.
    """
    args = parse_arguments(argv)
    try:
        run(args)
    except DataError as error:
        print(f"train_tokenizer.py: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("train_tokenizer.py: interrupted, nothing was written", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
