"""One run from its checkpoints to analysis.json."""

import gc
import sys
from dataclasses import dataclass
from pathlib import Path

from data.quiet import quiet_imports
from evaluation.errors import EvaluationError
from evaluation.loading import Loading
from evaluation.models import load, load_tokenizer
from remoe.analysis.maps import RoutingMaps
from remoe.analysis.record import RoutingRecord
from routing_analysis.calibration import Calibration, sample
from routing_analysis.count_figures import figures_of_counts
from routing_analysis.indexed_text import find_beside, streams_of_run
from routing_analysis.json_text import streams_of_files
from routing_analysis.map_figures import Course, figures_of_maps
from routing_analysis.results import write_results
from routing_analysis.runs import Run
from routing_analysis.watching import watch

WEIGHTS = (".distcp", ".pt", ".safetensors")  # endings of a checkpoint's large files
LONGEST_DEFAULT = 512  # tokens of a sequence, for a Hugging Face model


@dataclass(frozen=True)
class Options:
    """What the command line asks for.

    Attributes:
        text: JSON-lines files or folders; empty for the run's own validation text.
        num_tokens: Of all domains together.
        sequence_length: Tokens of a sequence; None for what the run trained on.
        records: Files of routing records; None for those in the run's folder.
        loading: How models are loaded.
    """

    text: list[Path]
    num_tokens: int
    sequence_length: int | None
    records: list[Path] | None
    loading: Loading


def analyse(run: Run, options: Options) -> dict:
    """Make the maps that are missing, compute every figure, write analysis.json.

    Raises:
        EvaluationError: In one line.
    """
    calibration, records = _calibration(run, options), _records(run, options)
    files = {step: run.output / f"maps-{step:08d}.npz" for step in run.checkpoints}
    for step, path in files.items():
        if not _is_there(path, calibration, run.checkpoints[step]):
            print(f"{run.name}: step {step}: {calibration.token_ids.size} tokens", flush=True)
            _make_maps(run, step, calibration, options.loading).save(path)
            gc.collect()
    course = Course(RoutingMaps.load(files[max(files)]))
    checkpoints = []
    for path in files.values():
        maps = RoutingMaps.load(path)
        checkpoints.append(figures_of_maps(maps))
        course.add(maps)
    num_sequences, length = calibration.token_ids.shape
    results = {
        "run": run.name,
        **{name: maps.meta[name] for name in ("method", "topk", "num_experts", "moe_layers")},
        "domain_names": calibration.names,
        "calibration": {
            "source": calibration.source,
            "num_sequences": num_sequences,
            "sequence_length": length,
        },
        "checkpoints": checkpoints,
        "flips": course.flips,
        "saturation": course.saturation,
        "records": records,
    }
    write_results(run.output, results)
    return results


def _calibration(run: Run, options: Options) -> Calibration:
    length = options.sequence_length
    if run.args is not None:
        length = length or run.args.seq_length
    length = length or LONGEST_DEFAULT
    if options.text:
        tokenizer = load_tokenizer(_tokenizer(run, options.loading))
        _warn_of_another_vocabulary(run, tokenizer, options.loading)
        streams = streams_of_files(options.text, tokenizer, options.num_tokens)
        source = "--text " + " ".join(map(str, options.text))
    elif run.args is None:
        raise EvaluationError(
            f"{run.folder}: a Hugging Face folder names no text: give JSON-lines files by --text, "
            "one a domain"
        )
    else:
        if options.loading.tokenizer is not None:
            raise EvaluationError(
                "--tokenizer: has no effect on a run's own text: give --text, too"
            )
        with quiet_imports():
            streams = streams_of_run(run.args, run.folder)
        source = f"the validation text of {run.name}"
    return sample(streams, options.num_tokens, length, source)


def _tokenizer(run: Run, loading: Loading) -> Path:
    if loading.tokenizer is not None or run.args is None:
        return loading.tokenizer or run.folder
    path = getattr(run.args, "tokenizer_model", None)
    found = path and find_beside(path, run.folder)
    if not found or run.args.tokenizer_type != "HuggingFaceTokenizer":
        raise EvaluationError(
            f"{run.folder}: its run names no tokenizer that is here ({run.args.tokenizer_type}, "
            f"{path}); give a Hugging Face tokenizer's folder by --tokenizer"
        )
    return found


def _warn_of_another_vocabulary(run: Run, tokenizer: object, loading: Loading) -> None:
    """Its ids are valid ones of the model, and mean other tokens."""
    size = getattr(run.args, "padded_vocab_size", None)
    if loading.tokenizer is None or size is None:
        return
    step = run.args.make_vocab_size_divisible_by * run.args.tensor_model_parallel_size
    if len(tokenizer) <= size - step:
        print(
            f"warning: --tokenizer {loading.tokenizer}: has {len(tokenizer)} tokens, and {run.name} was "
            f"trained with {size - step + 1} or more: figures mean nothing with another tokenizer",
            file=sys.stderr,
        )


def _is_there(path: Path, calibration: Calibration, checkpoint: Path) -> bool:
    if not path.is_file():
        return False
    if path.stat().st_mtime < _saved_at(checkpoint):
        print(f"{path}: older than {checkpoint}; made again", flush=True)
        return False
    try:
        maps = RoutingMaps.load(path)
    except ValueError as error:
        print(f"{error}; made again", flush=True)
        return False
    same = maps.is_of(calibration.token_ids, calibration.domains, calibration.names)
    if not same:
        print(f"{path}: of another text, of {maps.token_ids.size} tokens; made again", flush=True)
    return same


def _saved_at(checkpoint: Path) -> float:
    """When the newest of its weights were written: another training may have the same steps."""
    weights = (file for file in checkpoint.rglob("*") if file.suffix in WEIGHTS)
    return max((file.stat().st_mtime for file in weights), default=0.0)


def _make_maps(run: Run, step: int, calibration: Calibration, loading: Loading) -> RoutingMaps:
    checkpoint = run.checkpoints[step]
    loaded = load(checkpoint, loading, with_tokenizer=False)
    about = {"run": run.name, "step": step}
    if run.args is None:
        config = loaded.model.config
        method = "relu" if config.model_type == "remoe" else "topk"
        about |= {"method": method, "topk": getattr(config, "num_experts_per_tok", None)}
        batch_size = None
    else:
        from megatron.remoe.checkpoint.stored_run import method_of

        about |= {"method": method_of(run.args), "topk": run.args.moe_router_topk}
        # An expert chooses among the tokens of a micro-batch.
        by_expert = about["method"] == "expert-choice"
        batch_size = run.args.micro_batch_size if by_expert else None
    try:
        return watch(loaded, calibration, about, batch_size)
    except EvaluationError as error:
        raise EvaluationError(f"{checkpoint}: {error}") from error


def _records(run: Run, options: Options) -> list[dict]:
    paths = options.records
    if paths is None:
        paths = sorted(run.records.glob("*.npz")) if run.records.is_dir() else []
    found = []
    for path in paths:
        try:
            record = RoutingRecord.load(path)
        except ValueError as error:
            raise EvaluationError(f"--records {error}") from error
        about = {"phase": record.phase, "step": record.step, "domain_names": record.domain_names}
        found.append(about | figures_of_counts(record))
    return sorted(found, key=lambda record: (record["phase"], record["step"]))
