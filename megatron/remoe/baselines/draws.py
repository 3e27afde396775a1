"""Random numbers of a router that are the same for a token in every layout of a run."""

from collections import deque

import torch
from megatron.core import parallel_state
from megatron.core.num_microbatches_calculator import get_num_microbatches
from megatron.training import get_args
from torch import Tensor

SHIFT = 0x9E3779B97F4A7C15  # of splitmix64


class TokenDraws:
    """Uniform random numbers for the tokens of a micro-batch, computed from where they stand.

    They depend on the seed of the run, the layer, the step, the micro-batch's place in the global batch
    and the token's place in it, and on nothing else: ranks that share a token draw the same, those that
    do not draw apart, and any layout draws what one process does. There is no state to save: a resumed
    run is at the start of a step. Recomputation draws again what the forward pass drew.

    Args:
        tp_group: Tensor-parallel ranks.
        cp_group: Context-parallel ranks.
        sequence_parallel: Whether tensor-parallel ranks hold parts of a sequence.
    """

    def __init__(self, tp_group, cp_group, sequence_parallel: bool) -> None:
        self.tp_size = tp_group.size() if sequence_parallel else 1
        self.tp_rank = tp_group.rank() if sequence_parallel else 0
        self.cp_size, self.cp_rank = cp_group.size(), cp_group.rank()
        self._step = -1
        self._count = 0
        self._to_recompute: deque[int] = deque()

    def uniform(self, layer: int, shape: tuple[int, int, int], device: torch.device) -> Tensor:
        """Draw for this rank's part of the next micro-batch.

        Args:
            layer: Number of the layer.
            shape: Positions and sequences that this rank has, numbers for each token.
            device: On which to draw; another kind of device draws other numbers.

        Returns:
            ``[positions * sequences, numbers]`` fp32 in [0, 1).
        """
        length, batch, width = shape
        generator = torch.Generator(device).manual_seed(self._seed(layer))
        num_positions = length * self.tp_size * self.cp_size
        draws = torch.rand(num_positions, batch, width, generator=generator, device=device)
        mine = positions_of_rank(
            num_positions, (self.cp_rank, self.cp_size), (self.tp_rank, self.tp_size)
        )
        return draws[mine.to(device)].flatten(0, 1)

    def _seed(self, layer: int) -> int:
        """Of this micro-batch in this layer: 63 bits."""
        args = get_args()
        replica = parallel_state.get_data_parallel_rank()
        place = self._micro_batch() * parallel_state.get_data_parallel_world_size() + replica
        seed = 0
        for number in (args.seed, layer, args.curr_iteration, place):
            seed = _mix(seed + number)
        return seed >> 1

    def _micro_batch(self) -> int:
        """Which of the step's micro-batches of this rank it is.

        A first pass of recomputation runs without gradients; the second comes in the same order, layer
        by layer, in every schedule.
        """
        step = get_args().curr_iteration
        if step != self._step:
            self._step, self._count = step, 0
            self._to_recompute.clear()
        if torch.is_grad_enabled() and self._to_recompute:
            return self._to_recompute.popleft()
        # A step that is run again, to check it, counts from 0 again.
        index = self._count % get_num_microbatches()
        self._count += 1
        if not torch.is_grad_enabled():
            self._to_recompute.append(index)
        return index


def positions_of_rank(num_positions: int, cp: tuple[int, int], tp: tuple[int, int]) -> Tensor:
    """Where in the whole sequence the positions lie that a rank has, in its order.

    Megatron cuts a sequence into twice as many parts as there are context-parallel ranks and gives each
    rank one from the front and one from the back; sequence parallelism cuts these once more.

    Args:
        num_positions: Of the whole sequence.
        cp: Rank and size of the context-parallel group.
        tp: Rank and number of ranks among which sequence parallelism divides.

    Returns:
        ``[num_positions / (cp size * tp size)]`` int64.
    """
    (cp_rank, cp_size), (tp_rank, tp_size) = cp, tp
    positions = torch.arange(num_positions)
    if cp_size > 1:
        parts = positions.view(2 * cp_size, -1)
        positions = parts[[cp_rank, 2 * cp_size - 1 - cp_rank]].flatten()
    return positions.view(tp_size, -1)[tp_rank]


def _mix(number: int) -> int:
    """Scatter an integer over 64 bits: splitmix64."""
    low = (1 << 64) - 1
    number = (number + SHIFT) & low
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & low
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & low
    return number ^ (number >> 31)
