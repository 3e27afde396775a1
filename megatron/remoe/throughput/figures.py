"""How fast a stretch of training or evaluation went, by the names that the log gives it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Figures:
    """Speed of a stretch.

    Attributes:
        tokens_per_second: Of all devices together.
        tflops_per_gpu: TFLOP/s of one device.
        peak_tflops: The most that it can do, or None.
    """

    tokens_per_second: float
    tflops_per_gpu: float
    peak_tflops: float | None

    @property
    def mfu(self) -> float | None:
        """Model FLOPs utilisation: TFLOP/s over the peak, a fraction. Recomputed layers count once."""
        return self.tflops_per_gpu / self.peak_tflops if self.peak_tflops else None

    def scalars(self) -> dict[str, float]:
        """For tensorboard and W&B; `throughput` is Megatron's name."""
        scalars = {"throughput": self.tflops_per_gpu, "tokens-per-second": self.tokens_per_second}
        return scalars if self.mfu is None else scalars | {"mfu": self.mfu}

    def line(self) -> str:
        """For the console, without TFLOP/s, which Megatron's line of training has."""
        line = f" tokens-per-second: {self.tokens_per_second:.1f} |"
        return line if self.mfu is None else f"{line} mfu: {self.mfu:.4f} |"
