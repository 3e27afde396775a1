"""A run whose memory ends: one message, an exit code, and no rank that waits for ever."""

import re
import sys

import pytest

from commands import MOCK_DATA, RELU_MOE, TINY_MODEL, run

# A step keeps 0.7 GiB; what is allowed beyond what the process has when it begins is 0.25 GiB.
MODEL = [*TINY_MODEL, *MOCK_DATA, *RELU_MOE, "--train-iters", "1", "--num-experts", "32"]
LIMITED = """
import os, resource, sys
sys.path.insert(0, os.getcwd())
import pretrain_gpt

def forward_step(*args, step=pretrain_gpt.forward_step):
    if os.environ.get("LOCAL_RANK", "1") == "1":
        size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + 2**28, resource.RLIM_INFINITY))
    return step(*args)

pretrain_gpt.forward_step = forward_step
pretrain_gpt.main()
"""


@pytest.mark.parametrize("ranks", [1, 2], ids=["alone", "one of two ranks"])
def test_the_last_words_are_what_helps(tmp_path, ranks):
    script = tmp_path / "limited.py"
    script.write_text(LIMITED)
    launch = [sys.executable, str(script)]
    if ranks > 1:
        launch[1:1] = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    batch = ["--micro-batch-size", "48", "--global-batch-size", str(48 * ranks)]
    done = run([*launch, *MODEL, *batch], OMP_NUM_THREADS="1")
    assert done.returncode == (2 if ranks == 1 else 1), done.stderr[-3000:]
    assert "> ReMoE: memory of the fullest rank" in done.stdout
    found = re.search(r"^pretrain_gpt.py: (out of memory on rank .*)", done.stderr, re.S | re.M)
    first, moment, title, *options = found[1].splitlines()
    assert re.fullmatch(rf"out of memory on rank {ranks - 1} in iteration 1: .*allocate.*", first)
    assert "with 16 active experts a token, as when training starts: estimated" in moment
    assert title.strip() == "Add one of:" and "--moe-relu-chunk-above" in options[0]
    if ranks == 1:
        assert "Traceback" not in done.stderr
