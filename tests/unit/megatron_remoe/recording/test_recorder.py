"""When the recorder counts, and when a record is written: never one that is wrong."""

from argparse import Namespace
from unittest import mock

import pytest
import torch

from megatron.remoe.micro_batch import MicroBatch, in_forward
from megatron.remoe.recording import recorder as recorder_module
from megatron.remoe.recording.recorder import RoutingRecorder
from moe_layers import RouterStack, make_config
from remoe.analysis.record import RoutingRecord

E, S, B = 8, 6, 2
TOKENS = torch.arange(S * B).view(B, S)


class Optimizer:
    """As much of a Megatron optimizer as the recorder touches."""

    def __init__(self):
        self.takes_steps = True

    def scale_loss(self, loss):
        return loss

    def step(self):
        return self.takes_steps, None, None


class Run:
    """A training loop in Megatron's order: forward-backward, finalize, optimizer."""

    def __init__(self, folder, **changes):
        torch.manual_seed(0)
        config = make_config(E, 2, num_layers=3)
        self.args = Namespace(
            record_routing=str(folder),
            record_routing_interval=2,
            record_routing_token_ids=4,
            padded_vocab_size=16,
            curr_iteration=0,
            eval_iters=1,
            multiple_validation_sets=False,
            validation_set_names=None,
            moe_relu_routing=True,
            moe_router_topk=2,
        )
        vars(self.args).update(changes)
        self.folder, self.finalized = folder, 0
        self.model = RouterStack(config, layer_numbers=(1, 3))
        self.routers = [layer.router for layer in self.model.layers]
        self.optimizer = Optimizer()
        config.grad_scale_func = self.optimizer.scale_loss  # training.py: train()
        config.finalize_model_grads_func = self.finalize
        names = {"train": ["mock"], "valid": ["a", "b"], "test": ["mock"]}
        with mock.patch.object(recorder_module, "domain_names", lambda args, phase: names[phase]):
            self.recorder = RoutingRecorder([self.model], config, self.args)

    def finalize(self, model):
        self.finalized += 1

    def forward(self, seed=0, told=True):
        hidden = torch.randn(S, B, 32, generator=torch.Generator().manual_seed(seed))
        batch = MicroBatch(TOKENS, torch.zeros(B, dtype=torch.int64)) if told else None
        with in_forward(batch):
            return [router(hidden) for router in self.routers]

    def step(self, step, seed=0, told=True):
        self.args.curr_iteration = step - 1
        outputs = self.forward(seed, told)
        self.recorder([self.model])
        self.optimizer.step()
        return outputs

    def evaluate(self, step, num_sets=1, completed=1, is_test=False):
        self.model.eval()
        with torch.no_grad(), self.recorder.evaluation(step, is_test, num_sets) as end_of_set:
            for seed in range(completed):
                self.forward(seed)
                end_of_set()
        self.model.train()

    @property
    def files(self):
        return sorted(path.name for path in self.folder.iterdir())

    def record(self, name):
        return RoutingRecord.load(self.folder / name)


@pytest.fixture
def run(single_rank, tmp_path):
    return Run(tmp_path)


def loads(outputs):
    return [routing_map.sum(dim=0).tolist() for _, routing_map in outputs]


def test_every_nth_step_gives_one_file(run):
    for step in range(1, 6):
        run.step(step)
    assert run.files == ["train-00000002.npz", "train-00000004.npz"]
    assert run.finalized == 5


def test_a_record_is_of_its_own_step(run):
    run.step(1, seed=1)
    outputs = run.step(2, seed=2)
    run.step(3, seed=3)
    second = run.step(4, seed=4)
    record = run.record("train-00000002.npz")
    assert record.tokens_per_expert.tolist() == loads(outputs)
    assert run.record("train-00000004.npz").tokens_per_expert.tolist() == loads(second)
    assert record.meta == {
        "format": 1,
        "phase": "train",
        "step": 2,
        "num_steps": 1,
        "method": "relu",
        "topk": 2,
        "moe_layers": [1, 3],
        "domain_names": ["mock"],
        "vocab_size": 16,
    }
    assert record.num_tokens == S * B
    assert record.token_count.tolist() == [1] * 12 + [0] * 4


def test_tokens_meet_their_own_experts(run):
    outputs = run.step(2)
    record = run.record("train-00000002.npz")
    for layer, (_, routing_map) in enumerate(outputs):
        by_token = (
            routing_map.view(S, B, E).transpose(0, 1).reshape(-1, E)
        )  # ids count up by sample
        assert record.token_active[:12, layer].tolist() == by_token.sum(dim=1).tolist()
        assert record.token_tokens_per_expert[:, layer].tolist() == by_token[:4].long().tolist()


def test_micro_batches_add_up(run):
    run.args.curr_iteration = 1
    first, second = run.forward(seed=1), run.forward(seed=2)
    run.recorder([run.model])
    run.optimizer.step()
    record = run.record("train-00000002.npz")
    assert record.num_tokens == 2 * S * B
    total = [
        [a + b for a, b in zip(*each, strict=True)]
        for each in zip(loads(first), loads(second), strict=True)
    ]
    assert record.tokens_per_expert.tolist() == total


def test_recomputation_counts_nothing(run):
    """In the backward pass no forward step is there to tell the tokens."""
    run.args.curr_iteration = 1
    run.forward()
    run.forward(told=False)
    run.recorder([run.model])
    run.optimizer.step()
    assert run.record("train-00000002.npz").num_tokens == S * B


def test_a_step_that_the_optimizer_skips_leaves_no_record(run):
    run.optimizer.takes_steps = False
    run.step(2, seed=1)
    assert run.files == []
    run.optimizer.takes_steps = True
    outputs = run.step(4, seed=2)
    assert run.files == ["train-00000004.npz"]
    assert run.record("train-00000004.npz").tokens_per_expert.tolist() == loads(outputs)


def test_a_step_that_runs_again_counts_as_its_last_run(run):
    run.args.curr_iteration = 1
    run.forward(seed=1)
    run.recorder([run.model])
    outputs = run.step(2, seed=2)
    assert run.record("train-00000002.npz").tokens_per_expert.tolist() == loads(outputs)


def test_without_an_optimizer_each_step_is_written(run):
    run.recorder._steps.config.grad_scale_func = None
    run.args.curr_iteration = 1
    run.forward()
    run.recorder([run.model])
    assert run.files == ["train-00000002.npz"]


def test_a_step_that_is_not_recorded_does_nothing(run):
    run.args.curr_iteration = 0
    with mock.patch.object(run.recorder.counters, "add", side_effect=AssertionError):
        run.step(1)


def test_outputs_are_what_they_were(run, tmp_path):
    recorded = run.step(2)
    bare = RouterStack(make_config(E, 2, num_layers=3), layer_numbers=(1, 3))
    bare.load_state_dict(run.model.state_dict())
    hidden = torch.randn(S, B, 32, generator=torch.Generator().manual_seed(0))
    for layer, (probs, routing_map) in zip(bare.layers, recorded, strict=True):
        expected = layer.router(hidden)
        assert torch.equal(probs, expected[0]) and torch.equal(routing_map, expected[1])


def test_an_evaluation_gives_one_file(run):
    run.step(2, seed=5)
    run.evaluate(2)
    run.evaluate(2, is_test=True)
    assert run.files == ["test-00000002.npz", "train-00000002.npz", "valid-00000002.npz"]
    record = run.record("valid-00000002.npz")
    assert (record.phase, record.step, record.num_tokens) == ("valid", 2, S * B)
    assert record.meta["num_steps"] == 1 and record.domain_names == ["a", "b"]
    assert run.record("test-00000002.npz").phase == "test"


def test_validation_sets_are_domains(single_rank, tmp_path):
    run = Run(tmp_path, multiple_validation_sets=True, eval_iters=[1, 1])
    run.evaluate(3, num_sets=2, completed=2)
    record = run.record("valid-00000003.npz")
    assert record.domain_tokens.tolist() == [S * B, S * B]
    assert record.meta["num_steps"] == 2
    run.model.eval()
    for i in range(2):
        expected = loads(run.forward(seed=i))
        assert record.domain_tokens_per_expert[i].tolist() == expected


def test_an_evaluation_that_ends_early_leaves_no_record_and_no_trace(run):
    run.args.multiple_validation_sets = True
    run.evaluate(1, num_sets=2, completed=1)
    assert run.files == []
    run.step(2)
    assert run.record("train-00000002.npz").num_tokens == S * B


def test_an_evaluation_that_fails_leaves_no_record(run):
    with pytest.raises(RuntimeError), run.recorder.evaluation(1, False, 1) as end_of_set:
        run.model.eval()
        run.forward()
        end_of_set()
        raise RuntimeError
    assert run.files == []
    run.model.train()
    run.step(2)
    assert run.files == ["train-00000002.npz"]


def test_a_foreign_forward_step_is_warned_of(run):
    run.args.curr_iteration = 1
    with pytest.warns(UserWarning, match="no router was seen"):
        run.step(2, told=False)
    assert run.files == []


def test_a_full_disk_does_not_end_the_run(run, monkeypatch):
    def fail(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.warns(UserWarning, match=r"train-00000002\.npz is not written: No space left"):
        run.step(2)
    assert run.files == []
