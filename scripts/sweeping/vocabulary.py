"""The words of a sweep's YAML: what may be set, how it reaches the recipe, what a value may be."""

import math
import re
from functools import cache
from pathlib import Path

from sweeping.errors import SweepError

REPO = Path(__file__).resolve().parents[2]
SIZES = ("nano", "tiny", "small", "182m", "469m", "978m")
ONE_RECIPE_FOR_ALL = ("nano", "tiny", "small")  # these take METHOD from the environment
RELU_METHODS = ("relu", "relu-l1")
METHODS = (
    "dense",
    "topk",
    "topk-unbalanced",
    "topk-warmup",
    "topk-bias",
    "expert-choice",
    "hash",
    "sparsemixer",
    *RELU_METHODS,
)
SYNONYMS = {"moe": "topk", "remoe": "relu"}
OF_THE_RECIPES = {"topk": "moe", "relu": "remoe"}  # METHOD has these words for them

# Settings with names of their own, the recipe's variable and the kind of value of each.
VARIABLES = {
    "E": ("NUM_EXPERTS", "count"),
    "k": ("TOPK", "count"),
    "G": ("GRANULARITY", "count"),
    "expansion": ("FFN_EXPANSION", "count"),
    "lambda_0": ("L1_COEFF_INIT", "number"),
    "alpha": ("L1_COEFF_MULTIPLIER", "number"),
    "steps": ("TRAIN_ITERS", "count"),
    "batch": ("GLOBAL_BATCH_SIZE", "count"),
    "micro_batch": ("MICRO_BATCH_SIZE", "count"),
    "sequence": ("SEQ_LENGTH", "count"),
    "lr": ("LR", "number"),
    "min_lr": ("MIN_LR", "number"),
    "gpus": ("GPUS_PER_NODE", "count"),
    "eval_interval": ("EVAL_INTERVAL", "count"),
    "eval_iters": ("EVAL_ITERS", "count"),
    "save_interval": ("SAVE_INTERVAL", "count"),
    "seed": ("SEED", "count"),
}
OTHER_WORDS = ("size", "method", "blend")
DEFAULTS = {"E": "8", "k": "1", "G": "1", "expansion": "1", "seed": "1"}
# What a method does not have: such a setting is dropped, so that a cross with `dense` gives one run.
ONLY_ROUTED = ("E", "k", "G")
ONLY_DENSE = ("expansion",)
ONLY_RELU = ("lambda_0", "alpha")
FLAGS_OF_ROUTED = ("--moe-", "--record-routing")  # beginnings of flags that a dense model refuses
# What `recording` may hold: it is no part of a run's name or fingerprint.
RECORDING = re.compile("save_interval|LOG_INTERVAL|--(record|log|save|tensorboard|wandb|timing)-.*")
# The sweep itself sets these.
RESERVED = {"METHOD", "RUN_ROOT", "RUN_NAME", "PROJECT", "EXTRA_ARGS", "DRY_RUN"} | {
    variable for variable, _ in VARIABLES.values()
}
# Of what the recipes read, this alone may come from the caller's shell: places, no settings.
OF_THE_PLACE = re.compile(
    "PATH|HOME|MASTER_.*|NNODES|NODE_RANK|SLURM_.*|WANDB_API_KEY|CUDA_.*|PYTORCH_.*|DATA_ROOT|DATA_PATH|TOKENIZER_MODEL"
)


def has_setting(method: str, key: str) -> bool:
    """Whether a method has such a setting at all."""
    if method == "dense":
        return key not in (*ONLY_ROUTED, *ONLY_RELU) and not key.startswith(FLAGS_OF_ROUTED)
    return key not in ONLY_DENSE and (method in RELU_METHODS or key not in ONLY_RELU)


def only_records(key: str) -> bool:
    """Whether a setting changes what is kept of a run and nothing that it computes."""
    return RECORDING.fullmatch(key) is not None


@cache
def variables_of_recipes() -> set[str]:
    """Every upper-case word that the recipes read."""
    scripts = REPO / "scripts"
    files = [*scripts.glob("train_llama_*.sh"), *scripts.glob("lib/*.sh")]
    return set(re.findall(r"\$\{?([A-Z][A-Z0-9_]+)", "".join(file.read_text() for file in files)))


def check_key(key: object, where: str) -> str:
    """Return a setting's name.

    Raises:
        SweepError: It is none: neither a word of `VARIABLES`, a variable of the recipes nor a flag.
    """
    if isinstance(key, str):
        if key in VARIABLES or key in OTHER_WORDS or re.fullmatch(r"--[a-z0-9-]+", key):
            return key
        if key in RESERVED:
            raise SweepError(f"{where}: the sweep sets {key} itself; write {_word_of(key)}")
        if key in variables_of_recipes():
            return key
    known = ", ".join([*OTHER_WORDS, *VARIABLES])
    raise SweepError(
        f"{where}: unknown setting {key!r}; known are {known}, the recipes' variables (LR), flags (--x)"
    )


def _word_of(variable: str) -> str:
    words = [word for word, (name, _) in VARIABLES.items() if name == variable]
    return repr(words[0]) if words else "it as a setting or a flag"


def check_value(key: str, value: object, where: str) -> str:
    """Return a setting's value as the recipe is given it; a flag without a value gives "".

    Raises:
        SweepError: The value is of another type than the setting's.
    """
    if isinstance(value, bool) and key.startswith("--"):
        if value:
            return ""
        raise SweepError(f"{where}: {key} is false; leave it out")
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise SweepError(f"{where}: {key} must be a word or a number, got {value!r}")
    if key == "method":
        method = SYNONYMS.get(str(value), str(value))
        if method not in METHODS:
            raise SweepError(f"{where}: unknown method {value!r}; known are {', '.join(METHODS)}")
        return method
    if key == "size" and value not in SIZES:
        raise SweepError(f"{where}: size must be one of {', '.join(SIZES)}, got {value!r}")
    kind = VARIABLES[key][1] if key in VARIABLES else "word"
    if kind == "count":
        if not re.fullmatch(r"[1-9]\d*", str(value)):
            raise SweepError(f"{where}: {key} must be a positive integer, got {value!r}")
        return str(value)
    if kind == "number" or isinstance(value, float):
        return _number(key, value, where)
    return str(value)


def _number(key: str, value: int | float | str, where: str) -> str:
    """One spelling for each number: YAML reads 1e-5 as a word and 1.0e-5 as a number."""
    try:
        number = float(value)
    except ValueError:
        raise SweepError(f"{where}: {key} must be a number, got {value!r}") from None
    if not math.isfinite(number) or (number < 0 and key in VARIABLES):
        raise SweepError(f"{where}: {key} must be a number of at least 0, got {value!r}")
    text = f"{number:.12g}" if number == 0 or abs(number) >= 0.01 else f"{number:.12e}"
    return re.sub(r"\.?0*e([+-])0*", lambda m: "e" + m[1].replace("+", ""), text)
