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


def main() -> None:
    """Check what is asked for, then hand over."""
    asked = [word for word in sys.argv[1:2] if not word.startswith("-")]
    if asked and not (Path(asked[0]) / "config.json").is_file():
        sys.exit(
            f"serve.py: {asked[0]}: no config.json there: give a folder in Hugging Face's form"
        )
    model_manager.transformers.ReMoEForCausalLM = ReMoEForCausalLM
    sys.argv[:1] = ["transformers", "serve"]
    try:
        transformers_cli()
    except ImportError as error:
        sys.exit(f"serve.py: {error}")


if __name__ == "__main__":
    main()
