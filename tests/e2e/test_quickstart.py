"""The README's main command, at a few steps and without a network."""

from pathlib import Path

import pytest

from commands import run


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart")
    return {
        "DATA": str(folder / "data"),
        "RUN": str(folder / "run"),
        "CORPUS_ARGS": "--offline --mb-per-domain 0.2",
        "SEQ_LENGTH": "64",
    }


def test_quickstart_goes_from_text_to_report_and_a_second_call_goes_on(places):
    done = run(["bash", "examples/quickstart.sh"], STEPS="6", **places)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    for text in (
        "domains: code",
        "validation loss",
        "sparsity",
        "active experts a token",
        "checkpoint",
    ):
        assert text in done.stdout
    picture = Path(places["RUN"], "training.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    page = Path(places["RUN"], "report.html").read_text()
    for title in ("Load of the experts", "Tokens by their number of experts", "Specialisation"):
        assert f"<h2>{title}" in page

    done = run(["bash", "examples/quickstart.sh"], STEPS="8", **places)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "already holds this corpus" in done.stdout
    assert "iteration        7/       8" in done.stdout  # it resumed after 6
    assert "iteration        1/       8" not in done.stdout


def test_quickstart_refuses_an_unknown_option():
    done = run(["bash", "examples/quickstart.sh", "--frsh"])
    assert done.returncode == 2
    assert done.stderr.strip() == "quickstart.sh: unknown option --frsh (there is --fresh)"
