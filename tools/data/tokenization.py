"""Builds the tokenizer that training will build, and reduces it to what a worker needs.

The parent asks Megatron's own ``build_tokenizer`` (seconds of imports). A worker gets the state of
the Rust or C++ tokenizer inside and imports that library alone (tenths of a second).
"""

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from data.compression import INSTALL_HINT
from data.encoders import ENCODERS
from data.errors import DataError
from data.quiet import quiet_imports
from data.words import has_gpt2_words

SENTENCEPIECE_TYPES = ("SentencePieceTokenizer", "GPTSentencePieceTokenizer", "Llama2Tokenizer")
SUPPORTED_TYPES = ("HuggingFaceTokenizer", *SENTENCEPIECE_TYPES, "NullTokenizer")
# Spaces, newlines, accents, scripts, emoji, control and separator characters: where two
# implementations of "the same" tokenizer part ways.
SPACES = [chr(i) for i in (*range(33), *range(0x7F, 0xA1), 0x180E, 0x2028, 0x202F, 0x3000, 0xFEFF)]
PROBES = (
    "Hello world",
    " two  spaces\n\n\tand a tab\r\n",
    "naïve 漢字 🙂 \u2028\x85",
    "x",
    "".join(f"a{space}b {space}{space}it's {space}1!{space}? " for space in SPACES),
)


@dataclass(frozen=True)
class TokenizerSpec:
    """A tokenizer as it travels to the workers.

    Attributes:
        kind: which entry of ``ENCODERS`` rebuilds it.
        state: what that entry is called with.
        vocab_size: as Megatron counts it, added tokens included.
        eod: id of the end-of-document token, or None.
        dtype: name of the integer type of the output, by the size of the vocabulary.
    """

    kind: str
    state: Any
    vocab_size: int
    eod: int | None
    dtype: str


def megatron_arguments(options: argparse.Namespace) -> argparse.Namespace:
    """Fills in what ``build_tokenizer`` reads off the arguments of a training run, at its defaults."""
    return argparse.Namespace(
        tokenizer_type=options.tokenizer_type,
        tokenizer_model=options.tokenizer_model,
        vocab_size=options.vocab_size,
        tokenizer_hf_no_include_special_tokens=options.tokenizer_hf_no_include_special_tokens,
        tokenizer_hf_no_use_fast=False,
        tokenizer_sentencepiece_ignore_extra_whitespaces=True,
        tokenizer_sentencepiece_legacy=False,
        trust_remote_code=False,
        metadata_path=None,
        special_tokens=None,
        chat_template=None,
        vocab_file=None,
        merge_file=None,
        pad_vocab_size=False,
    )


def check_options(options: argparse.Namespace) -> None:
    """Refuses what cannot work before the slow imports.

    Raises:
        DataError: an unsupported type, or a model that is not there.
    """
    kind, model = options.tokenizer_type, options.tokenizer_model
    if kind == "GPT2BPETokenizer":
        raise DataError(
            "--tokenizer-type GPT2BPETokenizer asks the Hugging Face hub even when it is given "
            "files; use --tokenizer-type HuggingFaceTokenizer with --tokenizer-model naming a "
            "local folder that holds tokenizer.json and tokenizer_config.json"
        )
    if kind not in SUPPORTED_TYPES:
        raise DataError(f"--tokenizer-type {kind} is not one of {', '.join(SUPPORTED_TYPES)}")
    if kind == "NullTokenizer":
        if options.vocab_size is None:
            raise DataError("--tokenizer-type NullTokenizer needs --vocab-size")
        return
    if model is None:
        raise DataError(f"--tokenizer-type {kind} needs --tokenizer-model")
    if kind == "HuggingFaceTokenizer" and not os.path.isdir(model):
        raise DataError(
            f"--tokenizer-model {model}: no such folder; give a local one (the hub is not asked: "
            f'AutoTokenizer.from_pretrained("NAME").save_pretrained("FOLDER") makes it)'
        )
    if kind in SENTENCEPIECE_TYPES:
        if not os.path.isfile(model):
            raise DataError(f"--tokenizer-model {model}: no such file; {kind} needs a .model file")
        _require_sentencepiece(kind)


def _require_sentencepiece(kind: str) -> None:
    """Raises DataError where the optional package is missing."""
    try:
        import sentencepiece  # noqa: F401
    except ImportError as error:
        raise DataError(f"--tokenizer-type {kind} needs sentencepiece: {INSTALL_HINT}") from error


def load_tokenizer(options: argparse.Namespace) -> TokenizerSpec:
    """Builds the tokenizer in the parent and checks that the workers' one agrees with it.

    Args:
        options: the command line.

    Returns:
        What the workers need.

    Raises:
        DataError: the tokenizer cannot be loaded, is empty, or lacks what ``--append-eod`` needs.
    """
    check_options(options)
    arguments = megatron_arguments(options)
    with quiet_imports():
        from megatron.core.datasets.indexed_dataset import DType
        from megatron.core.tokenizers.utils.build_tokenizer import build_tokenizer

        try:
            tokenizer = build_tokenizer(arguments)
        except Exception as error:  # each library fails in its own way
            reason = " ".join(str(error).split())
            raise DataError(
                f"--tokenizer-model {options.tokenizer_model}: cannot be loaded as "
                f"{options.tokenizer_type}: {reason[:500]}"
            ) from error
    kind, state = _choose_encoder(tokenizer, arguments)
    eod = _find_eod(tokenizer, options)
    dtype = DType.optimal_dtype(tokenizer.vocab_size).__name__
    return TokenizerSpec(kind, state, tokenizer.vocab_size, eod, dtype)


def _choose_encoder(tokenizer, arguments: argparse.Namespace) -> tuple[str, Any]:
    """Picks the fastest way to encode that gives Megatron's ids on the probes."""
    if arguments.tokenizer_type == "NullTokenizer":
        return "megatron", arguments
    expected = [list(tokenizer.tokenize(text)) for text in PROBES]
    if not any(expected):
        raise DataError(
            f"--tokenizer-model {arguments.tokenizer_model}: the tokenizer is empty, it gives no "
            f"token for {PROBES[0]!r}; is tokenizer.json or the model file missing?"
        )
    for kind, state in _fast_candidates(tokenizer, arguments):
        if [list(ids) for ids in ENCODERS[kind](state)(list(PROBES))] == expected:
            return kind, state
    return "megatron", arguments


def _fast_candidates(tokenizer, arguments: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """Yields the encoders that go past Megatron's wrapper to the library below."""
    if arguments.tokenizer_type in SENTENCEPIECE_TYPES:
        yield "sentencepiece", arguments.tokenizer_model
        return
    hugging_face = tokenizer._tokenizer.tokenizer
    backend = getattr(hugging_face, "backend_tokenizer", None)  # None: written in Python
    if backend is not None:
        add_special_tokens = not arguments.tokenizer_hf_no_include_special_tokens
        state = {
            "json": backend.to_str(),
            "add_special_tokens": add_special_tokens,
            "encode_special_tokens": backend.encode_special_tokens,
        }
        if has_gpt2_words(state["json"], add_special_tokens):
            yield "words", state
        yield "tokenizers", state


def _find_eod(tokenizer, options: argparse.Namespace) -> int | None:
    """Asks Megatron for the end-of-document id; it must exist where it is to be appended."""
    eod = tokenizer.eod
    if eod is not None and 0 <= eod < tokenizer.vocab_size:
        return int(eod)
    if options.append_eod:
        raise DataError(
            f"--append-eod: the tokenizer {options.tokenizer_model} has no end-of-sequence token; "
            "set eos_token in its tokenizer_config.json, or leave --append-eod away"
        )
    return None
