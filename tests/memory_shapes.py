"""A run whose memory can be computed by hand, for the tests of estimate and advice."""

from dataclasses import replace


def make_shape(**changes):
    """One rank, two MoE layers, 64 tokens of width 8, 8 experts of width 16, bf16; all sizes of one."""
    from megatron.remoe.memory.shape import Shape

    shape = Shape(
        stages=((True, True),),
        hidden=8,
        heads=2,
        query_width=8,
        key_width=4,
        vocabulary=32,
        dense_width=0,
        shared_width=0,
        expert_width=16,
        expert_hidden=8,
        matrices=3,
        dense_parts=5,
        expert_parts=6,
        grouped_experts=False,
        num_experts=8,
        topk=1,
        tied_embeddings=False,
        sequence_length=16,
        micro_batch=4,
        global_batch=16,
        world=1,
        tp=1,
        sequence_parallel=False,
        vp=1,
        cp=1,
        ep=1,
        etp=1,
        value_bytes=2,
        gradient_bytes=4,
        optimizer_bytes=12,
        distributed_optimizer=False,
        norm_bytes=8,
        recompute="none",
        recompute_layers=1,
        recomputes_moe=False,
        can_chunk=True,
        can_spread=True,
        chunk_above=None,
        cap=None,
        topk_warm_up=None,
    )
    return replace(shape, **changes)


def large_shape(**changes):
    """The paper's 182M model with 32 experts, 16 sequences of 1024 tokens at once, fused."""
    sizes = {
        "stages": ((True,) * 12,),
        "hidden": 768,
        "heads": 12,
        "query_width": 768,
        "key_width": 768,
        "vocabulary": 50304,
        "expert_width": 3072,
        "expert_hidden": 768,
        "dense_parts": 3,
        "expert_parts": 3,
        "grouped_experts": True,
        "num_experts": 32,
        "sequence_length": 1024,
        "micro_batch": 16,
        "global_batch": 512,
        "world": 8,
        "norm_bytes": 2,
        "distributed_optimizer": True,
    }
    return make_shape(**{**sizes, **changes})
