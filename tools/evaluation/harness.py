"""lm-evaluation-harness over a loaded model, with the cost of what it ran."""

import contextlib
import logging
import math
import os
import sys
import urllib.request
from pathlib import Path
from types import TracebackType

import lm_eval
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from evaluation.models import MEGATRON, LoadedModel
from evaluation.routing import RoutingMeter

_HUB = "https://huggingface.co"
_HUB_PATIENCE_SECONDS = 5
# Of perplexities only, as accuracies have a formula; the harness's 100,000 take minutes on LAMBADA, and
# 1,000 know a standard error to 2 percent of itself.
_BOOTSTRAP_ITERS = 1000
# Else the harness forks this process, with all threads of torch and gloo, for each of them.
os.environ.setdefault("DISABLE_MULTIPROC", "1")


class MeteredLM(HFLM):
    """The harness's wrapper of a causal model, which tells a meter which positions are tokens.

    Args:
        loaded: A model of either form.
        batch_size: Sequences at once.
    """

    def __init__(self, loaded: LoadedModel, batch_size: int) -> None:
        logging.getLogger("lm_eval").setLevel(
            logging.ERROR
        )  # it warns of each sequence that it cuts
        super().__init__(
            pretrained=loaded.model,
            tokenizer=loaded.tokenizer,
            backend="causal",
            batch_size=batch_size,
            max_length=loaded.max_length,
        )
        self.meter = RoutingMeter(loaded.model, sequence_first=loaded.form == MEGATRON)
        self._row = 0

    def __enter__(self) -> "MeteredLM":
        self.meter.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.meter.__exit__(kind, error, trace)

    def loglikelihood(self, requests: list, disable_tqdm: bool = False) -> list:
        """The harness's, with its progress bar in a terminal only."""
        return super().loglikelihood(requests, disable_tqdm or not sys.stderr.isatty())

    def loglikelihood_rolling(self, requests: list, disable_tqdm: bool = False) -> list:
        """The harness's, with its progress bar in a terminal only."""
        return super().loglikelihood_rolling(requests, disable_tqdm or not sys.stderr.isatty())

    def _loglikelihood_tokens(
        self, requests: list, disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list:
        # With a batch size of its own it is called for each batch: a bar for each would be too many.
        silent = disable_tqdm or override_bs is not None
        windows = [self._windows(*request) for request in requests]
        flat = [window for group in windows for window in group]
        answers = iter(super()._loglikelihood_tokens(flat, silent, override_bs))
        return [_joined([next(answers) for _ in group]) for group in windows]

    def _windows(
        self, key: tuple | None, context: list[int], continuation: list[int]
    ) -> list[tuple]:
        """The request, in as many as the model's context needs for the continuation.

        The harness cuts contexts, and fails where a continuation alone is too long. Here all tokens of
        it are scored: those of each window after as much as the context holds.
        """
        length = self.max_length
        if len(continuation) <= length:
            return [(key, context, continuation)]
        return [
            (None, context + continuation[:start], continuation[start : start + length])
            for start in range(0, len(continuation), length)
        ]

    def _model_call(self, inps: torch.Tensor, *args, **kwargs) -> torch.Tensor:
        self.meter.begin(*inps.shape)
        self._row = 0
        return super()._model_call(inps, *args, **kwargs)

    def _select_cont_toks(
        self, logits: torch.Tensor, contlen: int | None = None, inplen: int | None = None
    ) -> torch.Tensor:
        # Called once for each row of a batch, in order, with the row's true length.
        self.meter.keep(self._row, inplen)
        self._row += 1
        return super()._select_cont_toks(logits, contlen=contlen, inplen=inplen)


def _joined(answers: list[tuple[float, bool]]) -> tuple[float, bool]:
    """Log-likelihood, and whether it is what greedy choice gives, of windows that make one request."""
    return sum(value for value, _ in answers), all(is_greedy for _, is_greedy in answers)


def hub_is_reachable() -> bool:
    """Whether the hub, from which the harness's own tasks fetch their data, answers."""
    if (
        os.environ.get("HF_HUB_OFFLINE", "0") != "0"
        or os.environ.get("HF_DATASETS_OFFLINE", "0") != "0"
    ):
        return False
    try:
        endpoint = os.environ.get("HF_ENDPOINT", _HUB)
        with urllib.request.urlopen(endpoint, timeout=_HUB_PATIENCE_SECONDS):
            return True
    except (OSError, ValueError):
        return False


def task_manager(folder: Path | None) -> TaskManager:
    """The harness's tasks; with `folder` those in it alone, which takes no seconds to find."""
    if folder is None:
        return TaskManager()
    return TaskManager(include_path=str(folder), include_defaults=False)


def no_tasks() -> TaskManager:
    """For tasks that are given as definitions, which need no names."""
    return TaskManager(include_defaults=False)


def run_task(
    lm: MeteredLM, task: str | dict, manager: TaskManager, limit: int | None
) -> tuple[dict, dict | None, list[dict]]:
    """Run one task.

    Args:
        lm: The model.
        task: A name that `manager` knows, or a definition.
        manager: Where tasks are from.
        limit: Documents at most.

    Returns:
        The scores (`metrics` by name with `value`, `stderr` and `higher_is_better`, `num_documents`,
        `version`, `num_fewshot`, `chance`), the meter's summary, and the harness's samples.
    """
    lm.meter.reset()
    with contextlib.redirect_stdout(sys.stderr):  # remarks of the harness are no results
        results = lm_eval.simple_evaluate(
            model=lm,
            tasks=[task],
            limit=limit,
            task_manager=manager,
            bootstrap_iters=_BOOTSTRAP_ITERS,
            log_samples=True,
        )
    name = task if isinstance(task, str) else task["task"]
    samples = results["samples"][name]
    scores = {
        "metrics": _metrics(results["results"][name], results["higher_is_better"].get(name, {})),
        "num_documents": results["n-samples"][name]["effective"],
        "version": results["versions"].get(name),
        "num_fewshot": results["n-shot"].get(name),
    }
    if results["configs"][name].get("output_type") == "multiple_choice":
        scores["chance"] = chance(samples)
        if (majority := majority_share(samples)) is not None:
            scores["majority"] = majority
    return scores, lm.meter.summary(), samples


def _metrics(results: dict, higher_is_better: dict) -> dict:
    """`{"acc,none": x, "acc_stderr,none": y}` -> `{"acc": {"value": x, "stderr": y, ...}}`."""
    metrics = {}
    for key, value in results.items():
        metric, comma, _filter = key.partition(",")
        if comma and not metric.endswith("_stderr") and isinstance(value, int | float):
            stderr = results.get(key.replace(metric, f"{metric}_stderr", 1))
            known = isinstance(stderr, int | float) and math.isfinite(stderr)
            metrics[metric] = {
                "value": value,
                "stderr": stderr if known else None,
                "higher_is_better": higher_is_better.get(metric, True),
            }
    return metrics


def chance(samples: list[dict]) -> float:
    """Share of right answers of one who guesses: the mean of one over the number of choices."""
    return sum(1 / len(sample["resps"]) for sample in samples) / len(samples)


def majority_share(samples: list[dict]) -> float | None:
    """Share of right answers of one who always says the same, where all choose from the same words."""
    choices = {tuple(argument[1] for argument in sample["arguments"]) for sample in samples}
    if len(choices) != 1 or len(samples) == 1:
        return None
    targets = [sample["target"] for sample in samples]
    return max(targets.count(target) for target in set(targets)) / len(targets)
