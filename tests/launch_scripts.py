"""Starts the launch scripts and takes their dry runs apart."""

import os
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).parents[1]
SCRIPTS = REPO / "scripts"

# The paper's shapes (arXiv 2412.14711, table 2).
SIZES = {
    "182m": {"layers": 12, "hidden": 768, "ffn": 3072, "heads": 12, "groups": 4},
    "469m": {"layers": 24, "hidden": 1024, "ffn": 4096, "heads": 16, "groups": 4},
    "978m": {"layers": 24, "hidden": 1536, "ffn": 6144, "heads": 16, "groups": 4},
}
METHODS = ("dense", "moe", "remoe")

NINE = [(size, method) for size in SIZES for method in METHODS]


@dataclass
class Command:
    """One torchrun command, taken apart."""

    environment: dict[str, str]
    torchrun: dict[str, list[str]]
    program: str
    flags: dict[str, list[str]]
    words: list[str]


def group(words):
    """`--a 1 2 --b` -> `{"--a": ["1", "2"], "--b": []}`; a later flag replaces an earlier one."""
    flags = {}
    for word in words:
        if word.startswith("--"):
            current = flags[word] = []
        else:
            current.append(word)
    return flags


def take_apart(line):
    words = shlex.split(line)
    assert words[0] == "env"
    at = words.index("torchrun")
    program = next(i for i, word in enumerate(words) if word.endswith(".py"))
    return Command(
        environment=dict(word.split("=", 1) for word in words[1:at]),
        torchrun=group(words[at + 1 : program]),
        program=words[program],
        flags=group(words[program + 1 :]),
        words=words[program + 1 :],
    )


def start(script, *arguments, cwd=REPO, path=(), **environment):
    """Run a script with nothing in its environment but a PATH and what the test gives."""
    search = os.pathsep.join([*map(str, path), "/usr/local/bin", "/usr/bin", "/bin"])
    return subprocess.run(
        [SCRIPTS / script, *map(str, arguments)],
        env={"PATH": search, **environment},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def dry_run(script, *arguments, **kwargs):
    result = start(script, *arguments, DRY_RUN="1", **kwargs)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count("\n") == 1
    return take_apart(result.stdout)


def refusal(script, *arguments, **kwargs):
    """The one line on stderr of a script that refuses to start."""
    result = start(script, *arguments, **kwargs)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("\n") == 1
    name, message = result.stderr.strip().split(": ", 1)
    assert name == script
    return message


def name_of(size, method):
    return f"train_llama_{size}_{method}.sh"


REMOE = name_of("182m", "remoe")
MOE = name_of("182m", "moe")
DENSE = name_of("182m", "dense")


def executable(path, text):
    path.write_text("#!/bin/bash\n" + text)
    path.chmod(0o755)


def make_data(folder):
    for name in ("train_text_document.bin", "train_text_document.idx"):
        (folder / name).touch()
    (folder / "gpt2_tokenizer").mkdir()
