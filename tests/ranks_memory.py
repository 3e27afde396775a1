"""What ranks run for tests of the memory estimate: what autograd keeps in the command's first step."""

import contextlib
import io
import sys
import weakref
from unittest import mock

import torch


class SavedBytes:
    """Counts the storages that autograd holds, each once and without those of weights.

    Attributes:
        most: Bytes held at once.
    """

    def __init__(self, weights):
        self._weights = {weight.untyped_storage().data_ptr() for weight in weights}
        self._holders, self._now, self.most = {}, 0, 0

    def hooks(self):
        return torch.autograd.graph.saved_tensors_hooks(self._pack, lambda saved: saved.tensor)

    def _pack(self, tensor):
        storage = tensor.untyped_storage()
        saved, place, size = _Saved(tensor), storage.data_ptr(), storage.nbytes()
        if size and place not in self._weights:
            self._now += 0 if self._holders.get(place) else size
            self._holders[place] = self._holders.get(place, 0) + 1
            self.most = max(self.most, self._now)
            weakref.finalize(saved, self._release, place, size)
        return saved

    def _release(self, place, size):
        self._holders[place] -= 1
        self._now -= 0 if self._holders[place] else size


class _Saved:
    def __init__(self, tensor):
        self.tensor = tensor


def saved_by_a_step(flags):
    """Run the command for a step.

    Returns:
        The pipeline rank, what autograd held at most, active experts a token, and the `Shape`.
    """
    from megatron.core import parallel_state
    from megatron.core.transformer.moe.moe_logging import get_moe_metrics_tracker
    from megatron.training import get_args, training

    import pretrain_gpt
    from megatron.remoe.memory.shape import shape_of

    train_step, found = training.train_step, {}

    def counted(forward_step, data, model, *args, **kwargs):
        saved = SavedBytes(p for stage in model for p in stage.parameters())
        with saved.hooks():
            result = train_step(forward_step, data, model, *args, **kwargs)
        found["saved"] = saved.most
        found["stage"] = parallel_state.get_pipeline_model_parallel_rank()
        found["shape"] = shape_of(get_args(), model[0].config)
        found["active"] = found["shape"].topk_warm_up
        if found["active"] is None:
            stats = get_moe_metrics_tracker().source.stats
            found["active"] = stats.scalars()["moe_relu_active_experts"].item()
        return result

    with (
        mock.patch.object(sys, "argv", ["pretrain_gpt.py", *flags]),
        mock.patch.object(training, "train_step", counted),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        pretrain_gpt.main()
    return found["stage"], found["saved"], found["active"], found["shape"]
