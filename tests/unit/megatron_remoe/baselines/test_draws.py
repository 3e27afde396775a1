"""Random numbers of a router: by the token's place in the run, whatever the layout."""

from argparse import Namespace

import pytest
import torch
from megatron.training import global_vars

from megatron.remoe.baselines import draws
from megatron.remoe.baselines.draws import TokenDraws, positions_of_rank


class Group:
    """A process group of which only rank and size are asked."""

    def __init__(self, rank=0, size=1):
        self._rank, self._size = rank, size

    def rank(self):
        return self._rank

    def size(self):
        return self._size


@pytest.fixture
def args(monkeypatch):
    """Megatron's arguments in step 5 of a run of four micro-batches a step on one replica."""
    replica = {"rank": 0, "size": 1}
    state = draws.parallel_state
    monkeypatch.setattr(state, "get_data_parallel_rank", lambda: replica["rank"])
    monkeypatch.setattr(state, "get_data_parallel_world_size", lambda: replica["size"])
    monkeypatch.setattr(draws, "get_num_microbatches", lambda: 4 // replica["size"])
    global_vars.set_args(Namespace(seed=1234, curr_iteration=5, replica=replica))
    yield global_vars.get_args()
    global_vars.set_args(None)


def one_process():
    return TokenDraws(Group(), Group(), False)


def draw(source, length=8, layer=1):
    return source.uniform(layer, (length, 2, 3), torch.device("cpu"))


def test_positions_are_cut_front_and_back_and_then_by_sequence_parallelism():
    assert positions_of_rank(8, (0, 1), (0, 1)).tolist() == list(range(8))
    assert positions_of_rank(8, (0, 2), (0, 1)).tolist() == [0, 1, 6, 7]
    assert positions_of_rank(8, (1, 2), (0, 1)).tolist() == [2, 3, 4, 5]
    assert positions_of_rank(8, (1, 2), (1, 2)).tolist() == [4, 5]


def test_ranks_that_share_sequences_draw_parts_of_what_one_process_draws(args):
    whole = draw(one_process()).view(8, 2, 3)
    for cp in range(2):
        for tp in range(2):
            part = draw(TokenDraws(Group(tp, 2), Group(cp, 2), True), length=2).view(2, 2, 3)
            assert torch.equal(part, whole[positions_of_rank(8, (cp, 2), (tp, 2))])


def test_tensor_parallel_ranks_that_hold_the_same_tokens_draw_the_same(args):
    parts = [draw(TokenDraws(Group(rank, 2), Group(), False)) for rank in range(2)]
    assert torch.equal(*parts)


def test_replicas_share_the_micro_batches_of_one_process(args):
    alone = one_process()
    in_turn = [draw(alone) for _ in range(4)]
    for rank in range(2):
        args.replica.update(rank=rank, size=2)
        replica = one_process()
        for i in range(2):
            assert torch.equal(draw(replica), in_turn[2 * i + rank])


def test_micro_batches_steps_layers_and_seeds_differ(args):
    source = one_process()
    seen = [draw(source), draw(source), draw(source, layer=2)]
    args.curr_iteration = 6
    seen.append(draw(source))
    args.seed = 1
    seen.append(draw(one_process()))
    for i, a in enumerate(seen):
        assert not any(torch.equal(a, b) for b in seen[:i])


def test_a_resumed_run_draws_on(args):
    source = one_process()
    for _ in range(4):
        draw(source)
    args.curr_iteration = 6
    assert torch.equal(draw(source), draw(one_process()))


def test_a_step_that_is_run_again_draws_the_same(args):
    source = one_process()
    first = [draw(source) for _ in range(4)]
    second = [draw(source) for _ in range(4)]
    assert all(map(torch.equal, first, second))


def test_recomputation_draws_again_what_the_forward_pass_drew(args):
    """As in a pipeline: three forward passes, then backward and forward in turn."""
    source, plain = one_process(), one_process()
    expected = [draw(plain) for _ in range(4)]
    with torch.no_grad():
        forward = [draw(source) for _ in range(3)]
    backward = [draw(source)]
    with torch.no_grad():
        forward.append(draw(source))
    backward += [draw(source) for _ in range(3)]
    assert all(map(torch.equal, forward, expected))
    assert all(map(torch.equal, backward, expected))


def test_the_numbers_are_uniform(args):
    numbers = draw(one_process(), length=20000)
    assert numbers.min() >= 0 and numbers.max() < 1
    assert numbers.mean().item() == pytest.approx(0.5, abs=0.01)
    assert numbers.var().item() == pytest.approx(1 / 12, abs=0.003)
