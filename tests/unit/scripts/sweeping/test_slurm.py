"""The batch scripts of a sweep."""

import shutil
import subprocess

import pytest

from sweep_runs import write_sweep
from sweeping.errors import SweepError
from sweeping.slurm import write_scripts

TEXT = """
size: 182m
grid: {method: [dense, remoe]}
slurm: {nodes: 2, time: "10:00:00", partition: long, setup: module load cuda}
"""


def write(tmp_path, text=TEXT):
    sweep = write_sweep(tmp_path, text)
    return write_scripts(sweep, tmp_path / "try.yaml", tmp_path / "runs")


def test_each_run_has_a_script_with_its_directives_and_its_command(tmp_path):
    *scripts, submit = write(tmp_path)
    assert [file.name for file in scripts] == ["dense_x1_s1.sbatch", "relu_E8_k1_G1_s1.sbatch"]
    lines = scripts[1].read_text().splitlines()
    for directive in (
        "--job-name=relu_E8_k1_G1_s1",
        f"--output={tmp_path}/runs/try/relu_E8_k1_G1_s1/job.log",
        "--open-mode=append",
        "--nodes=2",
        "--ntasks-per-node=1",
        "--gpus-per-node=8",
        "--time=10:00:00",
        "--partition=long",
        "--requeue",
        "--signal=B:TERM@120",
    ):
        assert f"#SBATCH {directive}" in lines
    assert "module load cuda" in lines
    assert lines[-1].startswith(
        f"exec python scripts/sweep.py {tmp_path}/try.yaml --runs {tmp_path}/runs"
    )
    assert "--only relu_E8_k1_G1_s1 --srun" in lines[-1]
    assert not any("account" in line for line in lines)
    assert scripts[0].name in submit.read_text()


def test_slurm_finds_the_folder_of_the_jobs_log(tmp_path):
    write(tmp_path)
    assert (tmp_path / "runs/try/dense_x1_s1").is_dir()


def test_the_number_of_gpus_is_the_recipes_or_the_sweeps(tmp_path):
    text = "size: 182m\ngrid: {method: dense, gpus: [4]}\n"
    assert "#SBATCH --gpus-per-node=4" in write(tmp_path, text)[0].read_text()


def test_the_scripts_are_bash_and_clean(tmp_path):
    files = write(tmp_path)
    for file in files:
        subprocess.run(["bash", "-n", file], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", *files], check=True)


@pytest.mark.parametrize(
    ("slurm", "said"),
    [
        ("{gpu: 8}", "slurm: unknown key 'gpu'"),
        ("{nodes: many}", "slurm: nodes must be a positive integer, got 'many'"),
        ("{time: 24:00:00}", "slurm: time must be a text in quotes, got 86400"),
        ('{account: "me\\n#SBATCH --nodes=9"}', r"account must be one word, got 'me\n#SBATCH"),
        ("{partition: long queue}", "partition must be one word, got 'long queue'"),
        ("[a]", "slurm must be a mapping"),
    ],
)
def test_a_wrong_directive_is_refused(tmp_path, slurm, said):
    with pytest.raises(SweepError) as refused:
        write(tmp_path, f"size: 182m\ngrid: {{method: dense}}\nslurm: {slurm}\n")
    assert said in str(refused.value)


def test_the_setup_of_a_job_may_have_several_lines(tmp_path):
    text = 'size: 182m\ngrid: {method: dense}\nslurm: {setup: "module load cuda\\nmodule list"}\n'
    (script, _) = write(tmp_path, text)
    assert "\nmodule load cuda\nmodule list\n" in script.read_text()
