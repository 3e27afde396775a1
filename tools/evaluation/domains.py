"""Perplexity per token and bits per byte of text by domain."""

import json
import math
from pathlib import Path

from evaluation.errors import EvaluationError

_ENDING = ".valid.jsonl"


def find_domains(path: Path, flag: str = "--domains") -> dict[str, Path]:
    """Text files by name of their domain.

    Args:
        path: A JSON-lines file, or a folder of them: `NAME.valid.jsonl` where there are such, as
            tools/prepare_corpus.py writes, else every `.jsonl`.
        flag: That gave it, for messages.

    Raises:
        EvaluationError: There is none.
    """
    if path.is_file():
        return {_name(path): path}
    files = sorted(path.glob(f"*{_ENDING}")) or sorted(path.glob("*.jsonl"))
    if not files:
        raise EvaluationError(
            f"{flag} {path}: no .jsonl file there; tools/prepare_corpus.py makes a folder of them"
        )
    return {_name(file): file for file in files}


def _name(path: Path) -> str:
    return path.name.removesuffix(".jsonl").removesuffix(".valid")


def read_texts(path: Path, limit: int | None = None, flag: str = "--domains") -> list[str]:
    """The documents of a JSON-lines file, in order, without empty ones.

    Args:
        path: Lines of ``{"text": ...}``.
        limit: Documents at most.
        flag: That gave the file, for messages.

    Raises:
        EvaluationError: A line is something else, or there is no text.
    """
    texts = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if limit is not None and len(texts) == limit:
                break
            try:
                text = json.loads(line)["text"] if line.strip() else ""
                text.encode("utf-8")
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise EvaluationError(
                    f'{flag}: {path}, line {number}: not an object with a "text" ({error})'
                ) from error
            if text:
                texts.append(text)
    if not texts:
        raise EvaluationError(f"{flag}: {path}: holds no text")
    return texts


def domain_task(name: str, texts: list[str]) -> dict:
    """A task of the harness that takes the rolling log-likelihood of each text."""

    def dataset(**_: object) -> dict:
        from datasets import Dataset

        return {"test": Dataset.from_dict({"text": texts})}

    return {
        "task": f"domain_{name}",
        "custom_dataset": dataset,
        "test_split": "test",
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "bits_per_byte"}],
        "metadata": {"version": 1.0},
    }


def domain_scores(
    log_likelihoods: list[float], num_bytes: list[int], num_tokens: list[int]
) -> dict:
    """Bits per byte and perplexity per token, with standard errors over documents.

    ``bits_per_byte = -sum(ll) / (ln 2 * sum(bytes))`` and ``perplexity = exp(-sum(ll) / sum(tokens))``.

    Args:
        log_likelihoods: Of each document, natural logarithm.
        num_bytes: Of each document in UTF-8.
        num_tokens: Of each document.
    """
    losses = [-value for value in log_likelihoods]
    bits, bits_error = ratio_with_error(losses, num_bytes)
    loss, loss_error = ratio_with_error(losses, num_tokens)
    perplexity = math.exp(loss)
    return {
        "bits_per_byte": _metric(bits / math.log(2), bits_error, 1 / math.log(2)),
        "perplexity": _metric(perplexity, loss_error, perplexity),
    }


def _metric(value: float, error: float | None, slope: float) -> dict:
    stderr = None if error is None else error * slope
    return {"value": value, "stderr": stderr, "higher_is_better": False}


def ratio_with_error(
    numerators: list[float], denominators: list[int]
) -> tuple[float, float | None]:
    """``R = sum(x) / sum(y)`` and its standard error over documents, None for a single one.

    ``se = sqrt(n / (n - 1) * sum((x_i - R y_i)^2)) / sum(y)``: the linearised ratio estimator (Cochran,
    Sampling Techniques, 1977, ch. 6).
    """
    total, num = sum(denominators), len(denominators)
    ratio = sum(numerators) / total
    if num == 1:
        return ratio, None
    residuals = sum((x - ratio * y) ** 2 for x, y in zip(numerators, denominators, strict=True))
    return ratio, math.sqrt(num / (num - 1) * residuals) / total
