"""Which router, and which MoE layer, has each method that Megatron does not have."""

from megatron.core.transformer.moe.moe_layer import MoELayer
from megatron.core.transformer.moe.router import TopKRouter

from megatron.remoe.baselines.expert_choice import ExpertChoiceRouter
from megatron.remoe.baselines.hash_router import HashRouter
from megatron.remoe.baselines.sparsemixer import SparseMixerRouter
from megatron.remoe.baselines.topk_warm_up import TopKWarmUpRouter
from megatron.remoe.moe_layer import ReMoELayer

# Megatron's layer counts on k experts a token; ours takes any number of them.
ROUTERS: dict[str, tuple[type[TopKRouter], type[MoELayer]]] = {
    "topk-warmup": (TopKWarmUpRouter, ReMoELayer),
    "expert-choice": (ExpertChoiceRouter, ReMoELayer),
    "hash": (HashRouter, MoELayer),
    "sparsemixer": (SparseMixerRouter, MoELayer),
}
