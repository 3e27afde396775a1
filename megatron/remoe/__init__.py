"""ReLU routing for Megatron-Core: the method of `remoe` in Megatron's own slots.

In the order in which data passes them: `arguments` (with `conflicts`, `option_values`, `machine`,
`granularity`, `data_paths`), `config`, `model_config`, `layer_specs`, `moe_layer`, `router`,
`token_dispatcher`, `regularization`, `step_hook`, `metrics`; beside them `gpt_data` and
`forward_step`, what a training script brings. `torch_native` has what layers need without
TransformerEngine, `checkpoint` what keeps checkpoints whole. What had to be replaced in Megatron is
in `cpu` (CPU only), `patches`, `checkpoint.patches` and `checkpoint.async_writer`.

An existing Megatron launch changes two calls, see the README:

    from megatron.remoe.arguments import parse_and_validate_args
    from megatron.remoe.model_config import gpt_config_from_args
"""
