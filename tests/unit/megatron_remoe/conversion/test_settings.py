"""Settings of either form, and those that the other has no word for."""

from argparse import Namespace
from dataclasses import replace

import pytest
import torch

from command_line import _parser, parse
from conversions import FAMILIES
from megatron.remoe.conversion.architecture import ConversionError
from megatron.remoe.conversion.hf_config import architecture_of as of_config
from megatron.remoe.conversion.hf_config import config_of
from megatron.remoe.conversion.kept_settings import kept_args, kept_number
from megatron.remoe.conversion.megatron_settings import architecture_of, stored_args
from megatron.remoe.conversion.options import bytes_of
from megatron.remoe.conversion.refused import (
    OF_HUGGING_FACE,
    OF_MEGATRON,
    check_hugging_face,
    check_megatron,
)

PLAIN = (
    "--num-layers 2 --hidden-size 64 --num-attention-heads 4 --max-position-embeddings 64 --swiglu "
    "--normalization RMSNorm --position-embedding-type rope --disable-bias-linear "
).split()
MOE = ["--num-experts", "4", "--moe-router-topk", "2"]

# A flag that is refused: on a command line of these words.
REFUSED = {
    "--normalization": "--normalization LayerNorm",
    "--apply-layernorm-1p": "--apply-layernorm-1p",
    "--apply-residual-connection-post-layernorm": "--apply-residual-connection-post-layernorm",
    "--squared-relu": "--squared-relu",
    "--quick-geglu": "--quick-geglu",
    "--openai-gelu": "--openai-gelu",
    "--position-embedding-type": "--position-embedding-type learned_absolute",
    "--rotary-percent": "--rotary-percent 0.5",
    "--rotary-interleaved": "--rotary-interleaved",
    "--rotary-seq-len-interpolation-factor": "--rotary-seq-len-interpolation-factor 2",
    "--use-rope-scaling": "--use-rope-scaling",
    "--no-rope-freq": "--no-rope-freq 2",
    "--multi-latent-attention": "--multi-latent-attention",
    "--attention-output-gate": "--attention-output-gate",
    "--qk-l2-norm": "--qk-l2-norm",
    "--softmax-type": "--softmax-type off-by-one",
    "--window-size": "--window-size 8,0",
    "--use-mup": "--use-mup",
    "--mtp-num-layers": "--mtp-num-layers 1",
    "--moe-latent-size": "--num-experts 4 --moe-latent-size 8",
    "--moe-router-score-function": "--num-experts 4 --moe-router-score-function sigmoid",
    "--moe-router-topk-scaling-factor": "--num-experts 4 --moe-router-topk-scaling-factor 2.5",
    "--moe-router-num-groups": "--num-experts 4 --moe-router-num-groups 2",
    "--moe-router-group-topk": "--num-experts 4 --moe-router-group-topk 1",
    "--moe-router-enable-expert-bias": "--num-experts 4 --moe-router-enable-expert-bias",
    "--moe-expert-capacity-factor": "--num-experts 4 --moe-expert-capacity-factor 1",
    "--moe-apply-probs-on-input": "--num-experts 4 --moe-apply-probs-on-input",
    "--moe-router-load-balancing-type sinkhorn": "--num-experts 4 "
    "--moe-router-load-balancing-type sinkhorn",
    "--moe-router-dtype fp64": "--num-experts 4 --moe-router-dtype fp64",
    "--moe-relu-max-active-experts": "--num-experts 4 --moe-relu-routing "
    "--moe-relu-max-active-experts 2 --moe-relu-cap-steps 9",
}


@pytest.mark.parametrize("flag", REFUSED)
def test_a_flag_that_hugging_face_cannot_express_is_refused_by_name(flag):
    args, _ = parse([*PLAIN, *REFUSED[flag].split()])
    with pytest.raises(
        ConversionError, match=rf"x: cannot be expressed in Hugging Face.* {flag}: "
    ):
        check_megatron(args, "x")


@pytest.mark.parametrize(
    ("word", "name"), [("--swiglu", "--swiglu"), ("--disable-bias-linear",) * 2]
)
def test_a_flag_that_is_left_out_is_refused_by_name(word, name):
    args, _ = parse([other for other in PLAIN if other != word])
    with pytest.raises(ConversionError, match=f"without {name}"):
        check_megatron(args, "x")


def test_a_plain_model_is_not_refused():
    for more in ([], MOE, [*MOE, "--moe-relu-routing"]):
        check_megatron(parse([*PLAIN, *more])[0], "x")


def test_what_only_topk_heeds_is_no_matter_to_relu_routing():
    words = "--moe-relu-routing --moe-router-score-function sigmoid".split()
    check_megatron(parse([*PLAIN, *MOE, *words])[0], "x")


def test_a_cap_that_is_over_is_no_matter():
    words = REFUSED["--moe-relu-max-active-experts"].split()
    args, _ = parse([*PLAIN, *words])
    args.iteration = 9
    check_megatron(args, "x")


def test_every_refusal_names_a_flag_that_is_there():
    known = _parser()._option_string_actions
    for refusal in OF_MEGATRON:
        assert refusal.name.removeprefix("without ").split()[0] in known


STOCK = {"model_type": "llama", "hidden_act": "silu"}


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("hidden_act", {"hidden_act": "gelu"}),
        ("mlp_bias", {"mlp_bias": True}),
        ("attention_bias", {"attention_bias": True}),
        ("rope_parameters", {"rope_parameters": {"rope_type": "llama3", "factor": 8}}),
        ("rope_parameters", {"rope_scaling": {"type": "linear", "factor": 2}}),
        ("partial_rotary_factor", {"partial_rotary_factor": 0.5}),
        ("sliding_window", {"model_type": "mixtral", "sliding_window": 4096}),
        ("sliding_window", {"model_type": "qwen3", "use_sliding_window": True}),
        ("quantization_config", {"quantization_config": {"bits": 4}}),
        ("qk_norm", {"model_type": "remoe", "qk_norm": "full"}),
    ],
)
def test_an_entry_that_megatron_cannot_express_is_refused_by_name(name, entry):
    check_hugging_face(STOCK, "x")
    with pytest.raises(
        ConversionError, match=f"x: cannot be expressed in Megatron's form: {name}: "
    ):
        check_hugging_face(STOCK | entry, "x")
    assert name in {refusal.name for refusal in OF_HUGGING_FACE}


@pytest.mark.parametrize("family", FAMILIES)
def test_config_json_says_all_of_a_model(family):
    model = FAMILIES[family]
    config = config_of(model, "float32", {})
    read = of_config(config, model.padded_vocab_size)
    # A family whose router's dtype or dense width is not in config.json.
    read = replace(read, ffn_width=model.ffn_width)
    assert read == model


@pytest.mark.parametrize("family", FAMILIES)
def test_megatrons_arguments_say_all_of_a_model(family):
    model = FAMILIES[family]
    args = stored_args(model, torch.bfloat16, 16, "local", {})
    check_megatron(args, "x")
    reached = model.controller.reached_target if model.controller else None
    assert architecture_of(args, model.vocab_size, model.padded_vocab_size, reached) == model
    assert args.params_dtype == torch.bfloat16
    assert args.bf16


def test_a_missing_entry_of_config_json_is_named():
    config = config_of(FAMILIES["llama"], "float32", {})
    del config["num_hidden_layers"]
    with pytest.raises(ConversionError, match=r"config\.json: num_hidden_layers is missing"):
        of_config(config, 16)


def test_an_entry_of_another_type_is_refused():
    config = config_of(FAMILIES["remoe"], "float32", {}) | {"moe_layers": 3}
    with pytest.raises(ConversionError, match=r"config\.json: an entry is of another type"):
        of_config(config, 16)


def test_only_known_arguments_are_taken_from_a_folder():
    assert kept_args({"args": {"seq_length": 64, "spec": ["os", "system"]}}) == {"seq_length": 64}
    with pytest.raises(ConversionError, match="seq_length is 'long'"):
        kept_args({"args": {"seq_length": "long"}})
    with pytest.raises(ConversionError, match="divisible is 0"):
        kept_number({"divisible": 0}, "divisible")


def test_sizes_of_files():
    assert bytes_of("5GB") == 5 * 10**9
    assert bytes_of("1.5 mb") == 1_500_000
    assert bytes_of("4096") == 4096
    for wrong in ("0", "five", "-1GB", "5XB"):
        with pytest.raises(ConversionError, match=f"--max-shard-size {wrong}: give a size"):
            bytes_of(wrong)


def test_old_arguments_without_new_names_are_not_refused():
    args = Namespace(swiglu=True, normalization="RMSNorm", add_bias_linear=False)
    check_megatron(args, "x")
