"""The tokenizer that belongs to a model: its true size, a comparison of two, a copy."""

import json
import shutil
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

from megatron.core.tokenizers.utils.build_tokenizer import vocab_size_with_padding
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from megatron.remoe.conversion.architecture import ConversionError

# What a tokenizer's folder may hold; other files there are not copied.
FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "chat_template.jinja",
)
SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")


@dataclass(frozen=True)
class Vocabulary:
    """The vocabulary of a model.

    Attributes:
        size: Tokens, without padding.
        folder: Of the tokenizer; None where the model has none on this machine.
        tokenizer: None where `folder` is.
    """

    size: int
    folder: Path | None = None
    tokenizer: PreTrainedTokenizerBase | None = None

    @property
    def special_tokens(self) -> dict[str, int | None]:
        """For config.json."""
        return {name: getattr(self.tokenizer, name, None) for name in SPECIAL}

    def copy_to(self, folder: Path) -> None:
        """Put the tokenizer's files beside weights."""
        for name in FILES:
            if self.folder is not None and (self.folder / name).is_file():
                shutil.copyfile(self.folder / name, folder / name)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """A tokenizer from its files; none of its own code.

    Raises:
        ConversionError: If the folder has none, or asks to run code.
    """
    if not folder.is_dir():
        raise ConversionError(f"{folder}: there is no such folder")
    # transformers reads config.json there, too: this lets it know the type
    from remoe.hf.foreign_code import foreign_code

    if foreign := foreign_code(folder):
        raise ConversionError(f"{foreign}: refused")
    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # transformers and tokenizers raise anything
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ConversionError(f"{folder}: cannot load a tokenizer from there: {reason}") from error


def has_tokenizer(folder: Path) -> bool:
    """Whether a tokenizer's files are in a folder."""
    return any(
        (folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")
    )


def vocabulary_of_run(args: Namespace, given: Path | None, rows: int) -> Vocabulary:
    """The vocabulary of a Megatron run.

    Args:
        args: Stored in the checkpoint.
        given: `--tokenizer`.
        rows: Of the embedding.

    Raises:
        ConversionError: If it is unknown, is not the run's, or does not fit the embedding.
    """
    theirs = _tokenizer_of_run(args)
    folder = given or theirs
    if given and theirs:
        refuse_other_tokenizer(given, theirs, "the run's own")
    if folder:
        tokenizer = load_tokenizer(folder)
        vocabulary = Vocabulary(len(tokenizer), folder, tokenizer)
    elif getattr(args, "vocab_size", None):
        vocabulary = Vocabulary(args.vocab_size)
    else:
        raise ConversionError(
            f"--tokenizer: give its folder: the run's own ({args.tokenizer_type} "
            f"{args.tokenizer_model or ''}) is not here, and its size is not stored"
        )
    padded = vocab_size_with_padding(vocabulary.size, args, logging_enabled=False)
    if rows not in (padded, vocabulary.size):
        raise ConversionError(
            f"--tokenizer {folder or ''}: has {vocabulary.size} tokens, {padded} with padding, but the "
            f"checkpoint has {rows}: give the tokenizer that it was trained with"
        )
    return vocabulary


def _tokenizer_of_run(args: Namespace) -> Path | None:
    if args.tokenizer_type != "HuggingFaceTokenizer" or not args.tokenizer_model:
        return None
    folder = Path(args.tokenizer_model)
    return folder if folder.is_dir() and has_tokenizer(folder) else None


def vocabulary_of_folder(folder: Path, given: Path | None, size: int) -> Vocabulary:
    """The vocabulary of a model in Hugging Face form.

    Args:
        folder: Of the model.
        given: `--tokenizer`.
        size: Rows of its embedding, of config.json.

    Raises:
        ConversionError: If `--tokenizer` is another one than the model's, or has more tokens than rows.
    """
    theirs = folder if has_tokenizer(folder) else None
    if given and theirs:
        refuse_other_tokenizer(given, theirs, "the model's own")
    chosen = given or theirs
    if chosen is None:
        return Vocabulary(size)
    tokenizer = load_tokenizer(chosen)
    if len(tokenizer) > size:
        raise ConversionError(
            f"{chosen}: the tokenizer has {len(tokenizer)} tokens, config.json of {folder} says {size}: "
            "give the tokenizer that it was trained with"
        )
    return Vocabulary(size, chosen, tokenizer)


def refuse_other_tokenizer(given: Path, theirs: Path, whose: str) -> None:
    """Compare two tokenizers by what they make of text.

    Raises:
        ConversionError: If they differ: in their tokens, or in how they split.
    """
    if given.resolve() == theirs.resolve():
        return
    one, other = load_tokenizer(given), load_tokenizer(theirs)
    what = None
    if one.get_vocab() != other.get_vocab():
        what = f"{len(one)} tokens and {len(other)}, not the same"
    elif _splitting(one) != _splitting(other):
        what = "the same tokens, but another way to split text"
    if what:
        raise ConversionError(
            f"--tokenizer {given}: differs from {whose} in {theirs} ({what}): give one that does not"
        )


def _splitting(tokenizer: PreTrainedTokenizerBase) -> object:
    """What turns text into tokens, besides the vocabulary."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return tokenizer.encode("The quick brown fox; 12345, naïve Ωmega\n\tif x == 3:")
    parts = json.loads(backend.to_str())
    merges = (parts.get("model") or {}).get("merges")
    return [parts.get(name) for name in ("normalizer", "pre_tokenizer", "decoder")], merges
