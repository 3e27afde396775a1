"""A cap on active experts through Megatron's trainer: its log, its evaluation, and after its end."""

import re

from commands import RELU_MOE
from forked_commands import pretrain_each

# Weights so large that experts tell in the loss.
UNCAPPED = [*RELU_MOE, "--init-method-std", "0.2"]
CAPPED = [*UNCAPPED, "--moe-relu-max-active-experts", "1", "--moe-relu-cap-steps", "3"]


def test_pairs_are_dropped_until_the_last_capped_step_and_evaluation_has_the_next_steps_cap(
    tmp_path,
):
    run = ["--train-iters", "5", "--eval-interval", "1", "--save", tmp_path / "capped"]
    run += ["--save-interval", "1"]
    alone = ["--train-iters", "5", "--skip-train", "--load", tmp_path / "capped"]
    capped, *measured = pretrain_each(
        [*CAPPED, *run],
        [*CAPPED, *alone, "--ckpt-step", "1"],
        [*UNCAPPED, *alone, "--ckpt-step", "1"],
        [*CAPPED, *alone],
        [*UNCAPPED, *alone],
    )
    for done in (capped, *measured):
        assert done.returncode == 0, done.stderr[-2000:]
    dropped = re.findall(r"moe_relu_dropped_fraction: (\S+) ", capped.stdout)
    # caps of 1, 3 and 5 experts of 8
    assert float(dropped[0]) > float(dropped[1]) > float(dropped[2]) > 0
    assert dropped[3:] == ["0.0000", "0.0000"]
    losses = [re.findall(r"validation set.*lm loss value: (\S+)", done.stdout) for done in measured]
    with_cap, without = float(losses[0][0]), float(losses[1][0])
    assert abs(with_cap / without - 1) > 1e-4, "one step is over, the second has a cap of 3"
    assert losses[2] == losses[3], "there is no cap any more"
