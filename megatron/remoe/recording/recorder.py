"""Hangs counters on the routers of a built model, and writes what they counted."""

import contextlib
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from megatron.core.distributed.finalize_model_grads import finalize_model_grads
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.moe.router import TopKRouter
from megatron.core.utils import get_model_config
from megatron.training import get_args
from torch import Tensor

from megatron.remoe import micro_batch
from megatron.remoe.checkpoint.stored_run import method_of
from megatron.remoe.optimizer_steps import OptimizerSteps
from megatron.remoe.patches import watch_evaluations
from megatron.remoe.recording.counters import RoutingCounters
from megatron.remoe.recording.domains import PHASES, domain_names
from megatron.remoe.recording.schedule import is_recorded
from remoe.analysis.record import FORMAT, RoutingRecord


def install_recording(model: list[MegatronModule]) -> list[MegatronModule]:
    """Post-wrap hook of `--record-routing`, for any router in Megatron's slot.

    Args:
        model: The pipeline stages of this rank, wrapped. Returned unchanged.
    """
    config = get_model_config(model[0])
    recorder = RoutingRecorder(model, config, get_args())
    config.finalize_model_grads_func = recorder
    watch_evaluations(recorder.evaluation)
    return model


class RoutingRecorder:
    """`config.finalize_model_grads_func`, around the one that was there: closes a step's record.

    Forward hooks on the routers count while `micro_batch.current` is there, so recomputation, which runs
    in the backward pass, counts nothing twice. Each (token, layer) pair lives on one rank, so a sum over
    all ranks counts it once. A training step's record is written when the optimizer has taken the step:
    one that is skipped, or repeated before that, leaves none of its own. In steps that are not recorded
    a hook looks at one number and returns.

    Routers of multi-token-prediction layers are left out.

    Args:
        model: The pipeline stages of this rank.
        config: Their configuration.
        args: Megatron's, validated.
    """

    def __init__(self, model: list[MegatronModule], config, args: Namespace) -> None:
        self.args = args
        self.folder = Path(args.record_routing)
        self.finalize = config.finalize_model_grads_func or finalize_model_grads
        routers = [m for stage in model for m in stage.modules() if isinstance(m, TopKRouter)]
        routers = [router for router in routers if not router.is_mtp_layer]
        self.moe_layers = _moe_layers(routers, config.num_layers)
        self.domains = {phase: domain_names(args, phase) for phase in PHASES}
        self.counters = RoutingCounters(
            len(self.moe_layers),
            config.num_moe_experts,
            max(map(len, self.domains.values())),
            args.padded_vocab_size,
            min(args.record_routing_token_ids, args.padded_vocab_size),
            device=torch.cuda.current_device(),
        )
        for router in routers:
            router.register_forward_hook(self._count)
        self._steps = OptimizerSteps(config, self._write_pending)
        self._pending: RoutingRecord | None = None
        self._phase = "train"
        self._validation_set = 0

    def _count(self, router: TopKRouter, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
        """Forward hook."""
        batch = micro_batch.current()
        if batch is None or not is_recorded(self.args, router.training):
            return
        if router.training != (self._phase == "train"):
            return  # an evaluation that nobody announced
        probs, routing_map = output
        num_tokens, group = routing_map.shape[0], router.tp_group
        if num_tokens == batch.token_ids.numel() and group.rank() > 0:
            return  # without sequence parallelism every rank sees every token
        token_ids = micro_batch.tokens_of_rank(batch, num_tokens, group)
        if self._phase == "valid" and self.args.multiple_validation_sets:
            domains = torch.full_like(token_ids, self._validation_set)
        else:
            domains = micro_batch.domains_of_rank(batch, num_tokens, group)
        layer = self.moe_layers.index(router.layer_number)
        self.counters.add(layer, probs, routing_map, token_ids, domains)

    def __call__(self, *args, **kwargs) -> None:
        """Finalize the gradients, then close the step's record. Arguments are those of `finalize`."""
        self.finalize(*args, **kwargs)
        self._pending = None
        if is_recorded(self.args, is_training=True):
            self._pending = self._close(self.args.curr_iteration + 1, num_steps=1)
            if not self._steps.follow():
                self._write_pending()

    @contextlib.contextmanager
    def evaluation(
        self, iteration: int, is_test: bool, num_sets: int
    ) -> Iterator[Callable[[], None]]:
        """Record the evaluation inside, on every rank.

        Args:
            iteration: Steps trained before it.
            is_test: On the test set, not on validation sets.
            num_sets: Validation sets, one after another.

        Yields:
            What to call at the end of each set. An evaluation that ends early leaves no record.
        """
        self._phase, self._validation_set = "test" if is_test else "valid", 0
        self.counters.reset()

        def end_of_set() -> None:
            self._validation_set += 1

        try:
            yield end_of_set
            if self._validation_set == num_sets:
                iters = self.args.eval_iters
                num_steps = sum(iters) if isinstance(iters, list) else iters
                self._write(self._close(iteration, num_steps))
        finally:
            self._phase = "train"
            self.counters.reset()

    def _close(self, step: int, num_steps: int) -> RoutingRecord | None:
        """The record of all ranks, on rank 0; empties the counters."""
        self.counters.reduce()
        record = None
        if torch.distributed.get_rank() == 0:
            record = self.counters.to_record(self._meta(step, num_steps))
        self.counters.reset()
        return record

    def _meta(self, step: int, num_steps: int) -> dict:
        return {
            "format": FORMAT,
            "phase": self._phase,
            "step": step,
            "num_steps": num_steps,
            "method": method_of(self.args),
            "topk": self.args.moe_router_topk,
            "moe_layers": self.moe_layers,
            "domain_names": self.domains[self._phase],
            "vocab_size": self.args.padded_vocab_size,
        }

    def _write_pending(self) -> None:
        record, self._pending = self._pending, None
        self._write(record)

    def _write(self, record: RoutingRecord | None) -> None:
        if record is None:
            return
        if record.num_tokens == 0:
            warnings.warn(
                "--record-routing: no router was seen: it needs the forward step of "
                "megatron.remoe.forward_step",
                stacklevel=2,
            )
            return
        path = self.folder / f"{record.phase}-{record.step:08d}.npz"
        try:
            record.save(path)
        except OSError as error:  # statistics are not worth a run
            warnings.warn(f"--record-routing: {path} is not written: {error}", stacklevel=2)


def _moe_layers(routers: list[TopKRouter], num_layers: int) -> list[int]:
    """Numbers, from 1, of the MoE layers of all pipeline stages."""
    has_router = torch.zeros(num_layers, dtype=torch.int64, device=torch.cuda.current_device())
    for router in routers:
        has_router[router.layer_number - 1] = 1
    torch.distributed.all_reduce(has_router)
    return [i + 1 for i, number in enumerate(has_router.tolist()) if number]
