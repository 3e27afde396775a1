"""What recording does not go with is named in one line, before Megatron starts anything."""

import pytest

from command_line import MODEL, MOE, REMOE, parse
from megatron.remoe.recording.options import check_recording

TOPK = [*MODEL, *MOE]


def check(*words, model=REMOE):
    args, given = parse([*model, *words])
    check_recording(args, given)
    return args


@pytest.mark.parametrize("model", [REMOE, TOPK], ids=["ReLU", "TopK"])
def test_every_model_with_experts_can_be_recorded(model):
    args = check("--record-routing", "routing", model=model)
    assert args.record_routing_interval == 10, "--eval-interval"
    assert args.record_routing_token_ids == 1024


def test_it_is_off_by_default():
    args = check()
    assert args.record_routing is None and args.record_routing_interval is None


def test_the_interval_may_be_another():
    assert (
        check("--record-routing", "r", "--record-routing-interval", "3").record_routing_interval
        == 3
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--record-routing r --record-routing-interval 0", "--record-routing-interval 0: give"),
        ("--record-routing r --record-routing-interval -5", "--record-routing-interval -5: give"),
        ("--record-routing r --record-routing-token-ids -1", "--record-routing-token-ids -1: give"),
        ("--record-routing s3://bucket/r", "s3://bucket/r: give a folder of a file system"),
        ("--record-routing-interval 5", "-interval: has no effect without --record-routing DIR"),
        ("--record-routing-token-ids 5", "-token-ids: has no effect without --record-routing DIR"),
        ("--record-routing r --mlp-chunks-for-training 2", "leave one out"),
        (
            "--record-routing r --cuda-graph-impl local --cuda-graph-modules moe_router",
            "name --cuda-graph-modules without MoE ones",
        ),
    ],
)
def test_what_cannot_be_recorded_is_one_line(words, message):
    with pytest.raises(ValueError, match=message) as error:
        check(*words.split(), model=TOPK)
    assert "\n" not in str(error.value)


def test_a_dense_model_has_no_routers():
    with pytest.raises(ValueError, match="a dense model has no routers: give --num-experts"):
        check("--record-routing", "r", model=MODEL)


def test_without_an_evaluation_interval_one_must_be_given():
    at = MODEL.index("--eval-interval")
    model = [*MODEL[:at], *MODEL[at + 2 :], *MOE]
    with pytest.raises(ValueError, match="give --record-routing-interval N"):
        check("--record-routing", "r", model=model)
    check("--record-routing", "r", "--record-routing-interval", "7", model=model)


def test_the_command_refuses_a_folder_that_cannot_be_written(validated, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"--record-routing .*/file/r: cannot write to .*/file"):
        validated([*REMOE, "--record-routing", str(tmp_path / "file" / "r")])


def test_the_command_refuses_a_bad_interval(validated):
    with pytest.raises(ValueError, match="--record-routing-interval 0"):
        validated([*REMOE, "--record-routing", "r", "--record-routing-interval", "0"])
