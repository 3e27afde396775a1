"""Tokens a second, MFU and peak memory between two lines of the training log."""

from dataclasses import dataclass

from megatron.core.num_microbatches_calculator import get_current_running_global_batch_size
from megatron.training import get_args, get_timers, training
from megatron.training.global_vars import get_tensorboard_writer, get_wandb_writer

from megatron.remoe.throughput.figures import Figures
from megatron.remoe.throughput.peak_memory import peak_memory_gib, restart_peak


@dataclass
class Work:
    """What was trained on since the last line.

    Attributes:
        samples: Sequences.
        tokens: Without padding, where the data says what is padding.
        squared_lengths: Sum of the squared lengths of the sequences, for attention's FLOPs.
    """

    samples: int = 0
    tokens: float = 0
    squared_lengths: float = 0


class TrainingThroughput:
    """Measures the iterations between two lines of the log as Megatron's own line measures them.

    The time is that of Megatron's `interval-time`: without evaluations and checkpoints. The first line
    is of the first iteration alone, which the second counts once more; only the console has it.

    Args:
        peak_tflops: Of one device, or None: no MFU.
    """

    def __init__(self, peak_tflops: float | None) -> None:
        self.peak_tflops = peak_tflops
        self._work = Work()
        self._time_before = 0.0

    def count(self, tokens: float | None = None, squared_lengths: float | None = None) -> None:
        """Add an iteration; no tensor is read.

        Args:
            tokens: Real tokens, as Megatron counts them for packed sequences; None for full ones.
            squared_lengths: Sum of their squared lengths, likewise.
        """
        samples, length = get_current_running_global_batch_size(), get_args().seq_length
        self._work.samples += samples
        self._work.tokens += samples * length if tokens is None else tokens
        self._work.squared_lengths += (
            samples * length**2 if squared_lengths is None else squared_lengths
        )

    def report(self, iteration: int, is_first: bool) -> str:
        """The console line's part; also writes scalars, unless it is the first line.

        On every rank, once Megatron has stopped its timer and measured the active experts.
        """
        args, work = get_args(), self._work
        seconds = self._time() - self._time_before
        flops = training.num_floating_point_operations(
            args,
            work.samples,
            seqlen_squared_sum_in_batch=work.squared_lengths,
            total_real_tokens_in_batch=work.tokens,
        )
        figures = Figures(
            tokens_per_second=work.tokens / seconds,
            tflops_per_gpu=flops / (seconds * 1e12 * args.world_size),
            peak_tflops=self.peak_tflops,
        )
        memory = peak_memory_gib()
        if not is_first:
            _write(figures.scalars() | {"peak-memory-gib": memory}, iteration)
        return f"{figures.line()} peak-memory-gib: {memory:.3f} |"

    def restart(self) -> None:
        """Begin the next interval."""
        self._work = Work()
        self._time_before = self._time()
        restart_peak()

    def _time(self) -> float:
        return get_timers()("interval-time").active_time()


def _write(scalars: dict[str, float], iteration: int) -> None:
    """To tensorboard and W&B, where this rank has them."""
    if get_args().log_timers_to_tensorboard:
        del scalars["throughput"]  # Megatron writes its own
    if writer := get_tensorboard_writer():
        for name, value in scalars.items():
            writer.add_scalar(name, value, iteration)
    if wandb_writer := get_wandb_writer():
        wandb_writer.log(scalars, iteration)
