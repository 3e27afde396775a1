"""What the ranks of a world run for tests of one MoE layer and of its router."""

import torch

from harness import layout
from moe_layers import (
    RouterStack,
    build_layer,
    copy_weights,
    make_config,
    make_reference,
    run_layer,
    written_by,
)


def moe_layers(sizes, cases):
    """Run layers under one parallel layout.

    Args:
        sizes: For `layout`.
        cases: Name to (options of `make_config`, reference, tokens by rank, directions by rank).

    Returns:
        Name to the results of `run_layer`, with `counts`.
    """
    rank, results = torch.distributed.get_rank(), {}
    with layout(**sizes):
        for name, (options, reference, tokens, directions) in cases.items():
            config = make_config(**sizes, **options)
            layer = build_layer(config).to(config.params_dtype)
            copy_weights(reference, layer)
            results[name] = run_layer(layer, tokens[rank], directions[rank])
            results[name]["counts"] = layer.router.state.counts
    return results


def routers_of_a_group(sizes, weight, tokens, cases):
    """Router gradients of the regulariser alone, for ranks that share sequences.

    Args:
        sizes: For `layout`; makes the TP x CP groups.
        weight: Of the router.
        tokens: ``[T, hidden]`` by rank.
        cases: Name to (options of `make_config`, ``[T]`` masks by rank, True = padding, or None).

    Returns:
        Name to the weight's gradient, the counts, the recorded loss and what it counts as.
    """
    rank, results = torch.distributed.get_rank(), {}
    with layout(**sizes):
        for name, (options, masks) in cases.items():
            router = build_layer(make_config(**options)).router
            with torch.no_grad():
                router.weight.copy_(weight)
            mask = None if masks is None else masks[rank].view(-1, 1)
            probs, _ = router(tokens[rank].unsqueeze(1), mask)
            probs.backward(torch.zeros_like(probs))
            results[name] = (router.weight.grad, router.state.counts, *router.state.reg_loss)
    return results


def steps_of_the_hook(sizes, layer_numbers, active, lambdas):
    """Several steps of the hook on router stacks that differ from rank to rank.

    Args:
        sizes: For `layout`.
        layer_numbers: By rank, the MoE layers that it holds; may be none.
        active: By step and rank, the micro-batches for `RouterStack`.
        lambdas: lambda at the first step.

    Returns:
        By step: the table that the hook gathered, the pending lambda, the routers' own, and the
        all-reduces as (number of elements, group).
    """
    from megatron.remoe.step_hook import ReMoEStepHook

    rank, calls, results = torch.distributed.get_rank(), [], []
    all_reduce = torch.distributed.all_reduce

    def counted(tensor, *args, **kwargs):
        calls.append((tensor.numel(), args, kwargs))
        return all_reduce(tensor, *args, **kwargs)

    with layout(**sizes):
        config = make_config(num_layers=4, moe_relu_l1_reg_coeff_init=lambdas)
        model = RouterStack(config, layer_numbers[rank])
        hook = ReMoEStepHook([model], config, finalize=lambda *args: None)
        torch.distributed.all_reduce = counted
        try:
            for step in active:
                for micro_batch in step[rank]:
                    model(micro_batch)
                calls.clear()
                hook([model])
                own = [layer.router.state.reg_coeff.clone() for layer in model.layers]
                results.append((hook.stats.table.clone(), hook._pending, own, list(calls)))
        finally:
            torch.distributed.all_reduce = all_reduce
    return results


def kinds_of_experts(sizes, kinds):
    """ReMoE layers that differ only in their experts: Megatron's `SequentialMLP` and torch's grouped.

    Args:
        sizes: For `layout`.
        kinds: `moe_grouped_gemm` of each.

    Returns:
        For each, the results of `run_layer` on this rank's tokens, what it writes into a checkpoint,
        and the marks of its weights.
    """
    results = []
    with layout(**sizes):
        for grouped in kinds:
            torch.manual_seed(0)
            is_split = sizes.get("tensor_model_parallel_size", 1) > 1
            layer = build_layer(
                make_config(moe_grouped_gemm=grouped, sequence_parallel=is_split, **sizes)
            )
            generator = torch.Generator().manual_seed(torch.distributed.get_rank())
            tokens, direction = torch.randn(2, 16, 32, generator=generator)
            written = written_by(layer.experts)
            marks = {weight.allreduce for weight in layer.experts.parameters()}
            results.append((run_layer(layer, tokens, direction), written, marks))
    return results


def topk_layers(sizes, dispatcher):
    """A TopK layer of Megatron's as it is, and with our MoE layer and dispatcher around its router.

    Args:
        sizes: For `layout`.
        dispatcher: `--moe-token-dispatcher-type`.

    Returns:
        The results of `run_layer` for both.
    """
    from functools import partial

    from megatron.core.transformer.moe.moe_layer import MoELayer
    from megatron.training.models.gpt import GPTModelConfig, default_layer_spec

    from megatron.remoe.moe_layer import ReMoELayer

    options = {"moe_token_dispatcher_type": dispatcher, "moe_aux_loss_coeff": 0.1}
    options["moe_router_load_balancing_type"] = "aux_loss"
    with layout(**sizes):
        config, results = make_config(**options, **sizes), []
        mlp = default_layer_spec(GPTModelConfig(transformer=config), None).layer_specs[0]
        mlp = mlp.submodules.mlp
        for build in (mlp, partial(ReMoELayer, **mlp.keywords)):
            assert build.func in (MoELayer, ReMoELayer)
            layer = build(config=config, is_mtp_layer=False, name="mlp")
            layer.set_layer_number(1)
            copy_weights(make_reference(8, 2), layer)
            generator = torch.Generator().manual_seed(torch.distributed.get_rank())
            tokens, direction = torch.randn(2, 16, 32, generator=generator)
            results.append(run_layer(layer, tokens, direction))
        return results
