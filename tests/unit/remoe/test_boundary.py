"""`remoe` is the method alone: it neither imports nor names Megatron in an import."""

import ast
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import remoe

PACKAGE = Path(remoe.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
MODULES = ["remoe", *(m.name for m in pkgutil.walk_packages([str(PACKAGE)], "remoe."))]


def imported_names(source):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_source_imports_megatron(path):
    roots = {name.split(".")[0] for name in imported_names(path.read_text())}
    assert "megatron" not in roots


def test_the_scan_sees_every_form_of_import():
    source = "import megatron.core as m\ndef f():\n    from megatron.remoe import cpu\n"
    assert list(imported_names(source)) == ["megatron.core", "megatron.remoe"]
    assert len(SOURCES) >= len(MODULES) > 1


@pytest.mark.parametrize("modules", [["remoe"], MODULES], ids=["package", "every module"])
def test_importing_it_in_a_clean_process_brings_no_megatron(modules):
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}:\n"
        "    try:\n"
        "        importlib.import_module(name)\n"
        "    except ModuleNotFoundError as error:\n"  # an optional dependency
        "        assert not error.name.startswith(('megatron', 'remoe')), error\n"
        "print([name for name in sys.modules if name.split('.')[0] == 'megatron'])\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[]"


def test_public_names_are_the_equations():
    assert set(remoe.__all__) <= set(dir(remoe))
