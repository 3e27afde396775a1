"""Options that bound or shorten the dense stage: what is refused, and what a checkpoint says of them."""

import re
import warnings

import pytest

from command_line import REMOE
from megatron.remoe.model_config import gpt_config_from_args
from saved_runs import words_for

CAP = "--moe-relu-max-active-experts"
STEPS = "--moe-relu-cap-steps"
WARMUP = "--moe-relu-l1-reg-coeff-warmup-multiplier"

REFUSED = [
    (f"{CAP} 1 {STEPS} 9", f"{CAP} 1: give a whole number from --moe-router-topk 2 to 7"),
    (f"{CAP} 8 {STEPS} 9", f"{CAP} 8: give a whole number from --moe-router-topk 2 to 7"),
    (f"{CAP} 9 {STEPS} 9", f"{CAP} 9: give a whole number"),
    (f"{CAP} 0 {STEPS} 9", f"{CAP} 0: give a whole number"),
    (
        f"{CAP} 3 {STEPS} 9 --moe-granularity 2",
        f"{CAP} 3: give a whole number from --moe-router-topk 4",
    ),
    (f"{CAP} 4", f"{CAP} 4: give {STEPS}, the number of steps that are capped"),
    (f"{CAP} 4 {STEPS} 0", "at least 1 (it is 0)"),
    (f"{CAP} 4 {STEPS} -3", "at least 1 (it is -3)"),
    (f"{STEPS} 9", f"{STEPS} 9: has no effect without {CAP}: give both or none"),
    (
        f"{WARMUP} 1.1",
        f"{WARMUP} 1.1: give a number of at least --moe-relu-l1-reg-coeff-multiplier 1.2",
    ),
    (f"{WARMUP} 0", f"{WARMUP} 0: give a number"),
    (f"{WARMUP} nan", f"{WARMUP} nan: give a number"),
    (f"{WARMUP} inf", f"{WARMUP} inf: give a number"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED, ids=[words for words, _ in REFUSED])
def test_it_is_refused_in_one_line_with_its_value(validated, words, message):
    args = validated([*REMOE, *words.split()])
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        gpt_config_from_args(args)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", (None, None, None)),
        (f"{CAP} 2 {STEPS} 1", (2, 1, None)),
        (f"{CAP} 7 {STEPS} 100", (7, 100, None)),
        (f"{CAP} 4 {STEPS} 9 --moe-granularity 2", (4, 9, None)),
        (f"{WARMUP} 1.2", (None, None, 1.2)),
        (f"{WARMUP} 4", (None, None, 4.0)),
    ],
)
def test_it_reaches_the_model(validated, words, expected):
    config = gpt_config_from_args(validated([*REMOE, *words.split()])).transformer
    found = config.moe_relu_max_active_experts, config.moe_relu_cap_steps
    assert (*found, config.moe_relu_l1_reg_coeff_warmup_multiplier) == expected


def test_a_warm_up_does_not_begin_in_the_middle_of_a_run(validated, saved_runs):
    """The checkpoint cannot say whether the target was reached."""
    words = [*words_for("remoe", f"{WARMUP} 2"), "--load", str(saved_runs / "remoe")]
    with pytest.raises(ValueError, match=f"{WARMUP}: the checkpoint was trained without it"):
        validated(words)
    validated([*words, "--moe-relu-restart-l1-reg-coeff"])


def test_a_cap_that_changes_in_a_run_is_warned_of(validated, saved_runs):
    words = [*words_for("remoe", f"{CAP} 2 {STEPS} 9"), "--load", str(saved_runs / "remoe")]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        validated(words)
    (said,) = [str(w.message) for w in caught if "megatron/remoe" in w.filename]
    assert f"{CAP}: 2 here, none in the checkpoint; {STEPS}: 9 here, none in" in said
