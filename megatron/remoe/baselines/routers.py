"""Which router has each method that Megatron does not have."""

from megatron.core.transformer.moe.router import TopKRouter

from megatron.remoe.baselines.expert_choice import ExpertChoiceRouter
from megatron.remoe.baselines.hash_router import HashRouter
from megatron.remoe.baselines.sparsemixer import SparseMixerRouter
from megatron.remoe.baselines.topk_warm_up import TopKWarmUpRouter

# All are in `ReMoELayer`: Megatron's own counts on k experts a token, which some of them do not give,
# and its optimizer's states are held otherwise with expert parallelism than without, so that a
# checkpoint would not go from one to the other.
ROUTERS: dict[str, type[TopKRouter]] = {
    "topk-warmup": TopKWarmUpRouter,
    "expert-choice": ExpertChoiceRouter,
    "hash": HashRouter,
    "sparsemixer": SparseMixerRouter,
}
