r"""Serves a ReMoE model by `transformers serve`: an OpenAI-compatible server, for tests and small loads.

    pip install "transformers[serving]"
    python tools/serve.py runs/quickstart/hf --port 8000
    curl localhost:8000/v1/completions -H 'Content-Type: application/json' \
        -d '{"model": "runs/quickstart/hf", "prompt": "The ", "max_tokens": 20}'

Takes the options of `transformers serve`. That server looks a model's class up in transformers' own
namespace, where those registered with its Auto classes are not: this command puts ours there, and needs
no --trust-remote-code.
"""

import sys
from pathlib import Path

from transformers.cli.serving import model_manager
from transformers.cli.transformers import main as transformers_cli

from remoe.hf import ReMoEForCausalLM
from remoe.hf.foreign_code import foreign_code


def main() -> None:
    """Check what is asked for, then hand over."""
    for i, word in enumerate(sys.argv[1:]):
        if Path(word).is_dir() or (i == 0 and not word.startswith("-")):
            _check_folder(Path(word))
    model_manager.transformers.ReMoEForCausalLM = ReMoEForCausalLM
    sys.argv[:1] = ["transformers", "serve"]
    try:
        transformers_cli()
    except ImportError as error:
        sys.exit(f"serve.py: {error}")


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        sys.exit(f"serve.py: {folder}: no config.json there: give a folder in Hugging Face's form")
    try:
        foreign = foreign_code(folder)
    except ValueError as error:
        sys.exit(f"serve.py: {error}")
    if foreign and "--trust-remote-code" not in sys.argv:
        sys.exit(f"serve.py: {foreign}: not run; read it, then say --trust-remote-code")


if __name__ == "__main__":
    main()
