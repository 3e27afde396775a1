"""Several nodes, by torchrun's variables or by SLURM."""

import pytest

from launch_scripts import REMOE, dry_run, executable, refusal


def test_nodes_by_torchruns_own_variables():
    nodes = {"NNODES": "4", "NODE_RANK": "3", "MASTER_ADDR": "node0", "MASTER_PORT": "1234"}
    assert dry_run(REMOE, **nodes).torchrun == {
        "--nproc-per-node": ["8"],
        "--nnodes": ["4"],
        "--node-rank": ["3"],
        "--master-addr": ["node0"],
        "--master-port": ["1234"],
    }


def slurm_step(tmp_path, **changes):
    """What srun sets in a step of one task on each of two nodes, with a scontrol that knows them."""
    executable(
        tmp_path / "scontrol",
        '[[ $* == "show hostnames gpu[7-8]" ]] && echo gpu7 && sleep 0.1 && echo gpu8',
    )
    step = {
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_STEP_NUM_NODES": "2",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NODELIST": "gpu[7-8]",
        "SLURM_NODEID": "1",
    }
    return {"path": [tmp_path], **step, **changes}


def test_nodes_by_slurm(tmp_path):
    assert dry_run(REMOE, **slurm_step(tmp_path)).torchrun == {
        "--nproc-per-node": ["8"],
        "--nnodes": ["2"],
        "--node-rank": ["1"],
        "--master-addr": ["gpu7"],
        "--master-port": ["29500"],
    }


def test_a_given_master_address_is_not_looked_up(tmp_path):
    step = slurm_step(tmp_path, SLURM_STEP_NODELIST="unknown", MASTER_ADDR="10.0.0.1")
    assert dry_run(REMOE, **step).torchrun["--master-addr"] == ["10.0.0.1"]


def test_a_slurm_step_on_one_node_needs_no_address(tmp_path):
    step = slurm_step(tmp_path, SLURM_STEP_NUM_NODES="1", SLURM_STEP_NUM_TASKS="1")
    assert "--standalone" in dry_run(REMOE, **step).torchrun


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"SLURM_STEP_NUM_TASKS": "16"}, "16 tasks on 2 nodes: use --ntasks-per-node=1"),
        ({"SLURM_STEP_NODELIST": "unknown"}, "set MASTER_ADDR"),
        ({"SLURM_STEP_NUM_NODES": ""}, "this job has 2 nodes: start the script by srun"),
    ],
    ids=["a task for each GPU", "scontrol fails", "no srun in a job of two nodes"],
)
def test_a_slurm_job_that_would_hang_is_refused(tmp_path, changes, message):
    assert message in refusal(REMOE, **slurm_step(tmp_path, **changes))


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "needs MASTER_ADDR"),
        ({"MASTER_ADDR": "a"}, "needs a NODE_RANK from 0 to 1, got ''"),
        ({"MASTER_ADDR": "a", "NODE_RANK": "2"}, "needs a NODE_RANK from 0 to 1, got '2'"),
        ({"MASTER_ADDR": "a", "NODE_RANK": "x"}, "needs a NODE_RANK from 0 to 1, got 'x'"),
        ({"NNODES": "two"}, "NNODES must be a positive integer, got 'two'"),
    ],
)
def test_half_given_nodes_are_refused(environment, message):
    assert message in refusal(REMOE, **{"NNODES": "2", **environment})
