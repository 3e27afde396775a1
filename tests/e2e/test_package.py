"""The wheel holds both packages and stands beside megatron-core's."""

import os
import shutil
import subprocess
import sys
import zipfile

from commands import ROOT


def test_wheel_adds_remoe_to_the_megatron_namespace(tmp_path):
    source = tmp_path / "source"
    for folder in ("remoe", "megatron"):
        shutil.copytree(ROOT / folder, source / folder)
    for file in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    subprocess.run([*build, "--wheel-dir", tmp_path, source], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "installed")
    assert {"remoe/routing.py", "megatron/remoe/router.py"} <= set(names)
    assert "megatron/__init__.py" not in names  # it would hide the installed Megatron

    statement = (
        "import megatron.core, megatron.training, megatron.remoe, remoe;"
        "print(megatron.remoe.__file__, remoe.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", statement],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split("\n")[-2].count(str(tmp_path / "installed")) == 2
