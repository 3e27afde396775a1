"""`--moe-routing` sets the options of a method and refuses those that contradict it."""

import pytest

from command_line import MODEL, MOE, REMOE, complaints, parse, with_method
from megatron.remoe.baselines.methods import METHODS, apply_method
from megatron.remoe.baselines.routers import ROUTERS
from megatron.remoe.checkpoint.settings import OWN_ROUTERS
from megatron.remoe.conflicts import check_conflicts

MIXTURE = [*MODEL, *MOE]

SETS = {
    "topk": {
        "moe_router_load_balancing_type": "aux_loss",
        "moe_aux_loss_coeff": 0.01,
        "moe_router_pre_softmax": True,
        "moe_router_score_function": "softmax",
        "moe_relu_routing": False,
    },
    "topk-unbalanced": {
        "moe_router_load_balancing_type": "none",
        "moe_aux_loss_coeff": 0.0,
        "moe_router_pre_softmax": True,
        "moe_relu_routing": False,
    },
    "topk-bias": {
        "moe_router_enable_expert_bias": True,
        "moe_router_score_function": "sigmoid",
        "moe_router_bias_update_rate": 1e-3,
        "moe_router_load_balancing_type": "none",
        "moe_aux_loss_coeff": 0.0,
    },
    "topk-warmup": {
        "moe_router_load_balancing_type": "aux_loss",
        "moe_aux_loss_coeff": 0.01,
        "moe_router_pre_softmax": True,
        "moe_topk_warmup_steps": 100,
    },
    "expert-choice": {"moe_router_load_balancing_type": "none", "moe_aux_loss_coeff": 0.0},
    "hash": {"moe_router_load_balancing_type": "none", "moe_hash_seed": 0},
    "sparsemixer": {
        "moe_router_load_balancing_type": "aux_loss",
        "moe_aux_loss_coeff": 0.01,
        "moe_sparsemixer_jitter": 0.1,
    },
    "relu": {"moe_relu_routing": True, "moe_relu_load_balancing": "micro-batch"},
    "relu-l1": {"moe_relu_routing": True, "moe_relu_load_balancing": "none"},
}


def test_every_method_has_a_row():
    assert SETS.keys() == METHODS.keys()
    assert set(OWN_ROUTERS) == set(ROUTERS)


@pytest.mark.parametrize("method", SETS)
def test_a_method_sets_its_options(method):
    args = with_method([*MIXTURE, "--moe-routing", method])
    assert {name: getattr(args, name) for name in SETS[method]} == SETS[method]


def test_without_the_flag_nothing_is_set():
    args, _ = parse(MIXTURE)
    assert vars(with_method(MIXTURE)) == vars(args)


def test_relu_is_the_same_as_its_own_flag():
    by_name = vars(with_method([*MIXTURE, "--moe-routing", "relu"]))
    by_flag = vars(with_method(REMOE))
    assert {name for name in by_flag if by_flag[name] != by_name[name]} == {"moe_routing"}


@pytest.mark.parametrize("method", ["relu", "relu-l1"])
def test_relu_and_its_flag_may_be_given_together(method):
    assert with_method([*REMOE, "--moe-routing", method]).moe_relu_routing


@pytest.mark.parametrize(
    "words", ["--moe-aux-loss-coeff 0.02", "--moe-router-load-balancing-type aux_loss"]
)
def test_what_does_not_make_the_method_may_be_given(words):
    args = with_method([*MIXTURE, "--moe-routing", "topk", *words.split()])
    assert args.moe_aux_loss_coeff in (0.01, [0.02])


REFUSED = [
    ("topk", "--moe-relu-routing", "--moe-relu-routing: topk is without it: leave it out"),
    (
        "topk",
        "--moe-router-load-balancing-type sinkhorn",
        "--moe-router-load-balancing-type sinkhorn: topk has aux_loss",
    ),
    (
        "topk-unbalanced",
        "--moe-aux-loss-coeff 0.1",
        "--moe-aux-loss-coeff 0.1: topk-unbalanced has",
    ),
    (
        "topk-bias",
        "--moe-router-score-function softmax",
        "--moe-router-score-function softmax: topk-bias has sigmoid",
    ),
    ("topk", "--moe-router-enable-expert-bias", "--moe-router-enable-expert-bias: topk is without"),
    (
        "relu-l1",
        "--moe-relu-load-balancing micro-batch",
        "--moe-relu-load-balancing micro-batch: relu-l1 has none",
    ),
]


NOT_MADE = "has not been made to work with this router: leave it out"
REFUSED += [
    (method, words, f"{words.split()[0]}: {NOT_MADE}")
    for method in OWN_ROUTERS
    for words in (
        "--moe-expert-capacity-factor 1.0",
        "--moe-router-fusion",
        "--moe-router-num-groups 2",
        "--moe-routing-trace-path x",
        "--overlap-moe-expert-parallel-comm",
        "--spec a b",
    )
]
FULL = "--recompute-granularity full --recompute-method uniform --recompute-num-layers 1"
REFUSED += [
    ("hash", words, "--recompute-granularity: would route again in the backward pass")
    for words in (
        FULL,
        "--recompute-granularity selective --recompute-modules moe",
        "--recompute-granularity selective --recompute-modules core_attn mlp",
        "--moe-layer-recompute",
    )
]
REFUSED += [
    (
        "hash",
        "--moe-topk-warmup-steps 10",
        "--moe-topk-warmup-steps: is of --moe-routing topk-warmup: leave it out",
    ),
    (
        "topk",
        "--moe-topk-warmup-experts 6",
        "--moe-topk-warmup-experts: is of --moe-routing topk-warmup: leave it out",
    ),
    (
        "topk",
        "--moe-sparsemixer-jitter 0.2",
        "--moe-sparsemixer-jitter: is of --moe-routing sparsemixer: leave it out",
    ),
    ("relu", "--moe-hash-seed 1", "--moe-hash-seed: is of --moe-routing hash: leave it out"),
    (
        "sparsemixer",
        "--moe-router-load-balancing-type sinkhorn",
        "--moe-router-load-balancing-type sinkhorn: sparsemixer has aux_loss",
    ),
    ("hash", "--moe-aux-loss-coeff 0.1", "--moe-aux-loss-coeff 0.1: hash has 0.0"),
]


@pytest.mark.parametrize(("method", "words", "message"), REFUSED)
def test_what_contradicts_the_method_is_refused_with_the_mend(method, words, message):
    with pytest.raises(ValueError, match=f"do not go with --moe-routing {method}") as error:
        with_method([*MIXTURE, "--moe-routing", method, *words.split()])
    assert message in str(error.value)
    assert "leave it out" in str(error.value)


@pytest.mark.parametrize("method", METHODS)
def test_a_dense_model_has_no_routing(method):
    with pytest.raises(ValueError, match=f"--moe-routing {method}: needs --num-experts"):
        with_method([*MODEL, "--moe-routing", method])


@pytest.mark.parametrize("method", [name for name in METHODS if not name.startswith("relu")])
def test_one_expert_leaves_nothing_to_choose(method):
    one = [*MODEL, "--num-experts", "1", "--moe-router-topk", "1"]
    with pytest.raises(ValueError, match="--num-experts 1: leaves nothing to choose"):
        with_method([*one, "--moe-routing", method])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("topk", [0, 5])
def test_more_experts_a_token_than_there_are_and_none_at_all_are_refused(method, topk):
    words = [*MODEL, "--num-experts", "4", "--moe-router-topk", str(topk)]
    args, given = parse([*words, "--moe-routing", method])
    apply_method(args, given)
    with pytest.raises(
        ValueError, match=rf"--moe-router-topk {topk}: .* 1 (to|and) --num-experts 4"
    ):
        check_conflicts(args, given)


RECOMPUTED = [
    *[(method, FULL) for method in ("topk-warmup", "expert-choice", "sparsemixer")],
    ("hash", "--recompute-granularity selective --recompute-modules core_attn moe_act"),
    ("sparsemixer", "--moe-router-load-balancing-type global_aux_loss"),
]


@pytest.mark.parametrize(("method", "words"), RECOMPUTED)
def test_what_goes_with_the_method_is_taken(method, words):
    assert with_method([*MIXTURE, "--moe-routing", method, *words.split()]).moe_routing == method


OF_OTHERS = ["--moe-topk-warmup-experts 6", "--moe-sparsemixer-jitter 1", "--moe-hash-seed 1"]


@pytest.mark.parametrize("words", OF_OTHERS)
def test_a_flag_of_a_method_has_no_effect_without_the_method(words):
    flag = words.split()[0]
    with pytest.warns(UserWarning, match=f"{flag} has no effect without --moe-routing"):
        with_method([*MIXTURE, *words.split()])


def test_relu_by_name_meets_the_rules_of_relu_routing():
    from megatron.remoe.conflicts import check_conflicts

    args = with_method([*MIXTURE, "--moe-routing", "relu", "--moe-router-fusion"])
    with pytest.raises(ValueError, match="--moe-router-fusion"):
        check_conflicts(args, frozenset({"--moe-routing", "--moe-router-fusion"}))
    assert complaints(MIXTURE) == (None, [])
