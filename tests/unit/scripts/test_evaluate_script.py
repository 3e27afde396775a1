"""scripts/evaluate.sh: one command of tools/evaluate.py for all models."""

import shlex

from launch_scripts import REPO, group, refusal, start

SCRIPT = "evaluate.sh"


def dry_run(*arguments, **environment):
    result = start(SCRIPT, *arguments, DRY_RUN="1", **environment)
    assert (result.returncode, result.stderr) == (0, "")
    program, *words = shlex.split(result.stdout)[1:]
    assert program == str(REPO / "tools/evaluate.py")
    return group(words)


def test_models_go_into_one_command():
    flags = dry_run("dense/checkpoints", "mine=exported")
    assert flags == {
        "--model": ["dense/checkpoints", "mine=exported"],
        "--batch-size": ["8"],
        "--output": [str(REPO / "runs/evaluation/results.json")],
        "--table": [str(REPO / "runs/evaluation/table.md")],
    }


def test_settings_come_from_the_environment():
    flags = dry_run(
        *("a b", "--offline"),
        **{"TASKS": "piqa,sciq", "DOMAINS": "my text", "LIMIT": "40", "BATCH_SIZE": "16"},
        **{"DTYPE": "bfloat16", "OUTPUT_DIR": "/out put"},
    )
    assert flags == {
        "--model": ["a b"],
        "--tasks": ["piqa,sciq"],
        "--domains": ["my text"],
        "--limit": ["40"],
        "--dtype": ["bfloat16"],
        "--batch-size": ["16"],
        "--output": ["/out put/results.json"],
        "--table": ["/out put/table.md"],
        "--offline": [],
    }


def test_every_flag_is_one_of_the_tool():
    import evaluate

    flags = dry_run("a", TASKS="piqa", DOMAINS="d", LIMIT="1", DTYPE="float32")
    words = [word for flag, values in flags.items() for word in (flag, *values)]
    assert evaluate.parse_arguments(words).model == ["a"]


def test_no_model_is_refused():
    assert refusal(SCRIPT) == "argument 1 must be a Hugging Face folder or a Megatron checkpoint"
    assert refusal(SCRIPT, "--offline") == refusal(SCRIPT)


def test_a_limit_that_is_no_number_is_refused():
    assert refusal(SCRIPT, "a", LIMIT="0") == "LIMIT must be a positive integer, got '0'"
    assert refusal(SCRIPT, "a", BATCH_SIZE="x") == "BATCH_SIZE must be a positive integer, got 'x'"
