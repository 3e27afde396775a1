"""From a command line to a model configuration: ReLU routing by its flag, Megatron's own without."""

import pytest
import torch
from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.training import argument_utils
from megatron.training.models.gpt import GPTModelConfig, default_layer_spec

from command_line import MODEL, MOE, REMOE
from megatron.remoe.config import ReMoETransformerConfig
from megatron.remoe.layer_specs import remoe_layer_spec, torch_native_layer_spec
from megatron.remoe.model_config import gpt_config_from_args
from megatron.remoe.step_hook import install_step_hook
from megatron.remoe.throughput.install import install_throughput_log

BASELINES = [MODEL, [*MODEL, *MOE, "--moe-router-load-balancing-type", "aux_loss"]]


@pytest.mark.parametrize("words", BASELINES, ids=["dense", "TopK"])
def test_dense_and_topk_models_are_megatrons_own(validated, words):
    args = validated([*words, "--transformer-impl", "local"])
    config, megatrons = gpt_config_from_args(args), argument_utils.gpt_config_from_args(args)
    assert type(config) is GPTModelConfig and type(config.transformer) is TransformerConfig
    assert config.transformer_layer_spec is None
    assert config.pre_wrap_hooks == config.post_wrap_hooks == []
    assert config.as_dict() == megatrons.as_dict()


@pytest.mark.parametrize("words", BASELINES, ids=["dense", "TopK"])
def test_their_layers_are_torch_native_where_transformer_engine_is_not(validated, words):
    config = gpt_config_from_args(validated(words))
    assert type(config.transformer) is TransformerConfig
    assert config.transformer_layer_spec is torch_native_layer_spec
    assert config.pre_wrap_hooks == config.post_wrap_hooks == []


@pytest.mark.parametrize("routing", [[], ["--moe-relu-routing"]], ids=["TopK", "ReLU"])
def test_grouped_experts_come_with_the_flag_and_say_how_they_run(validated, routing, capsys):
    """Megatron's own check, which wants a GPU for the flag, is not asked."""
    words = [*MODEL, *MOE, *routing, "--disable-bias-linear"]
    assert not gpt_config_from_args(validated(words)).transformer.moe_grouped_gemm
    assert "experts by" not in capsys.readouterr().out
    args = validated([*words, "--moe-grouped-gemm"])
    assert args.moe_grouped_gemm, "so that a checkpoint remembers it"
    assert gpt_config_from_args(args).transformer.moe_grouped_gemm
    said = capsys.readouterr().out
    assert "> ReMoE: --moe-grouped-gemm: experts by a loop of torch.mm\n" in said


def test_a_spec_of_the_users_own_is_taken(validated):
    spec = ["--spec", "megatron.core.models.gpt.gpt_layer_specs", "get_gpt_layer_local_spec"]
    config = gpt_config_from_args(validated([*MODEL, *spec]))
    assert config.transformer_layer_spec is not torch_native_layer_spec


@pytest.mark.parametrize(
    ("implementation", "base"),
    [([], torch_native_layer_spec), (["--transformer-impl", "local"], default_layer_spec)],
)
def test_the_flag_brings_spec_hook_and_fields(validated, implementation, base):
    args = validated(
        [
            *REMOE,
            "--moe-relu-l1-reg-coeff-init",
            "1e-6",
            "--moe-relu-l1-reg-coeff-multiplier",
            "1.1",
            "--moe-relu-load-balancing",
            "none",
            *implementation,
        ]
    )
    config = gpt_config_from_args(args)
    assert type(config) is GPTModelConfig and type(config.transformer) is ReMoETransformerConfig
    spec = config.transformer_layer_spec
    assert (spec.func, spec.keywords) == (remoe_layer_spec, {"base": base})
    assert config.post_wrap_hooks == [install_step_hook]
    assert config.transformer.moe_relu_l1_reg_coeff_init == 1e-6
    assert config.transformer.moe_relu_l1_reg_coeff_multiplier == 1.1
    assert config.transformer.moe_relu_load_balancing == "none"


def test_hooks_of_one_model_are_not_those_of_the_next(validated):
    args = validated(REMOE)
    first, second = gpt_config_from_args(args), gpt_config_from_args(args)
    assert first.post_wrap_hooks == second.post_wrap_hooks == [install_step_hook]
    assert gpt_config_from_args(validated(MODEL)).post_wrap_hooks == []


@pytest.mark.parametrize("words", [MODEL, [*MODEL, *MOE], REMOE], ids=["dense", "TopK", "ReLU"])
def test_log_throughput_hooks_every_kind_of_model(validated, words):
    hooks = gpt_config_from_args(validated(words)).post_wrap_hooks
    measured = gpt_config_from_args(validated([*words, "--log-throughput"])).post_wrap_hooks
    assert measured == [*hooks, install_throughput_log]


@pytest.mark.parametrize("topk", [1, 2, 8])
def test_every_target_validates(validated, topk):
    """Megatron refuses softmax top-1; with ReLU there is no softmax."""
    config = gpt_config_from_args(validated([*REMOE, "--moe-router-topk", str(topk)])).transformer
    assert config.moe_router_topk == topk
    assert config.moe_router_load_balancing_type == "none" and config.moe_aux_loss_coeff == 0.0


def test_topk_keeps_megatrons_own_check(validated):
    args = validated([*MODEL, *MOE, "--moe-router-topk", "1"])
    with pytest.raises(ValueError, match="softmax"):
        gpt_config_from_args(args)


@pytest.mark.parametrize("routing", [[], ["--moe-relu-routing"]], ids=["TopK", "ReLU"])
@pytest.mark.parametrize(
    ("words", "width"),
    [
        ("--moe-ffn-hidden-size 96", 96),
        ("--ffn-hidden-size 96", 96),
        ("--ffn-hidden-size 128 --moe-ffn-hidden-size 96", 96),
        ("", 256),  # 4h
        ("--swiglu", 128),  # 2/3 of it in multiples of 64
    ],
)
@pytest.mark.parametrize("granularity", [1, 2, 4])
def test_granularity_splits_experts(validated, routing, words, width, granularity):
    args = validated(
        [*MODEL, *MOE, *routing, *words.split(), "--moe-granularity", str(granularity)]
    )
    config = gpt_config_from_args(args).transformer
    assert config.num_moe_experts == 8 * granularity
    assert config.moe_router_topk == 2 * granularity
    assert config.moe_ffn_hidden_size == width // granularity
    assert 1 - config.moe_router_topk / config.num_moe_experts == 0.75, "sparsity stays"
    assert config.num_moe_experts * config.moe_ffn_hidden_size == 8 * width, "parameters stay"


def test_granularity_leaves_dense_layers_alone(validated):
    args = validated([*REMOE, "--ffn-hidden-size", "96", "--moe-granularity", "4"])
    config = gpt_config_from_args(args).transformer
    assert config.ffn_hidden_size == 96 and config.moe_ffn_hidden_size == 24


@pytest.mark.parametrize(
    ("words", "dtype"),
    [([], torch.float32), (["--bf16"], torch.bfloat16), (["--fp16"], torch.half)],
)
def test_the_dtype_of_the_run_reaches_the_model(validated, words, dtype):
    assert gpt_config_from_args(validated([*REMOE, *words])).transformer.params_dtype == dtype


def test_further_arguments_can_be_added(monkeypatch):
    import sys

    from megatron.training.global_vars import unset_global_variables

    from megatron.remoe.arguments import parse_and_validate_args

    def add(parser):
        parser.add_argument("--extra", type=int)
        return parser

    unset_global_variables()
    monkeypatch.setattr(sys, "argv", ["x", *REMOE, "--extra", "3"])
    args = parse_and_validate_args(add)
    unset_global_variables()
    assert args.extra == 3 and args.moe_relu_routing


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--moe-relu-chunk-above 0", "chunk-above 0: give a number above 0"),
        ("--moe-relu-chunk-above nan", "chunk-above nan: give a number above 0"),
        (
            "--moe-relu-chunk-above 2 --recompute-granularity selective --recompute-modules moe",
            "--moe-relu-chunk-above: does not go with --recompute-modules moe: leave one out",
        ),
        (
            "--moe-relu-chunk-above 2 --moe-shared-expert-intermediate-size 64 "
            "--moe-shared-expert-overlap --moe-token-dispatcher-type alltoall",
            "--moe-relu-chunk-above: does not go with --moe-shared-expert-overlap: leave one out",
        ),
    ],
)
def test_chunks_that_do_not_go_are_refused(validated, words, message):
    args = validated([*REMOE, *words.split()])
    with pytest.raises(ValueError, match=message):
        gpt_config_from_args(args)
