"""The transformer configuration of a ReMoE model, and the model configuration built from it."""

from argparse import Namespace
from dataclasses import dataclass

from megatron.core.transformer.transformer_config import TransformerConfig
from megatron.training.argument_utils import core_transformer_config_from_args
from megatron.training.argument_utils import gpt_config_from_args as megatron_gpt_config_from_args
from megatron.training.models.gpt import GPTModelConfig


@dataclass
class ReMoETransformerConfig(TransformerConfig):
    """`TransformerConfig` with ReLU routing. One field = one flag = one name.

    `moe_router_topk` keeps its name and becomes the *target* number of active experts a token.
    """

    moe_relu_l1_reg_coeff_init: float = 1e-8
    """lambda_0, the coefficient of the L1 regulariser at the first step."""

    moe_relu_l1_reg_coeff_multiplier: float = 1.2
    """alpha, the factor by which the coefficient moves each step."""

    moe_relu_load_balancing: str = "micro-batch"
    """Tokens whose expert load weighs the regulariser: "micro-batch" (eq. 10) or "none" (eq. 9)."""


def gpt_config_from_args(args: Namespace) -> GPTModelConfig:
    """Megatron's `gpt_config_from_args`, with ReLU routing where `--moe-relu-routing` asks for it.

    Args:
        args: What `megatron.remoe.arguments.parse_and_validate_args` gave.

    Returns:
        A `GPTModelConfig` whose layer spec routes by ReLU and whose post-wrap hook installs the
        controller; Megatron's own, untouched, without the flag.
    """
    if not args.moe_relu_routing:
        return megatron_gpt_config_from_args(args)
    from megatron.remoe.layer_specs import remoe_layer_spec
    from megatron.remoe.step_hook import install_step_hook

    transformer = core_transformer_config_from_args(args, ReMoETransformerConfig)
    config = megatron_gpt_config_from_args(args, config=transformer)
    config.transformer_layer_spec = remoe_layer_spec
    config.post_wrap_hooks.append(install_step_hook)
    return config
