"""Tells what hangs on `finalize_model_grads_func` of the steps that the optimizer takes."""

from collections.abc import Callable


class OptimizerSteps:
    """Calls back after each step that the optimizer takes: not a skipped or an overflowed one.

    `megatron.training` sets `config.grad_scale_func` to a method of its optimizer, the one way from a
    finalize hook to it.

    Args:
        config: Of the model.
        on_taken: Called without arguments.
    """

    def __init__(self, config, on_taken: Callable[[], None]) -> None:
        self.config = config
        self.on_taken = on_taken
        self._optimizer = None

    def follow(self) -> bool:
        """Follow the optimizer that there is now; False where there is none (another training loop)."""
        optimizer = getattr(self.config.grad_scale_func, "__self__", None)
        if optimizer is None or optimizer is self._optimizer:
            return optimizer is not None
        self._optimizer, take_step = optimizer, optimizer.step

        def step(*args, **kwargs):
            result = take_step(*args, **kwargs)
            was_taken = result[0]
            if was_taken:
                self.on_taken()
            return result

        optimizer.step = step
        return True
