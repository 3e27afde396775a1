"""The cap on active experts at the step that Megatron's trainer is in."""

from megatron.training import get_args

from megatron.remoe.config import ReMoETransformerConfig
from remoe import cap_at_step


class ActiveExpertCap:
    """Reads the step from Megatron's arguments each time, so there is no state to save or restore.

    In training the step is `curr_iteration`, which the trainer sets before each step and which goes on
    from the loaded checkpoint's: a resumed run has the caps of an uninterrupted one. Steps that are
    skipped or overflow count; a step that is run again, to check it, counts once.

    In evaluation it is the number of steps that are over, so the cap is that of the next training
    step: memory is bounded there too, and from step N on the model is measured without a cap.

    Args:
        config: With `moe_relu_max_active_experts` and `moe_relu_cap_steps`.
    """

    def __init__(self, config: ReMoETransformerConfig) -> None:
        self.cap = config.moe_relu_max_active_experts
        self.num_experts = config.num_moe_experts
        self.num_steps = config.moe_relu_cap_steps

    def now(self, training: bool) -> int | None:
        """The cap, or None for none.

        Args:
            training: Whether the model is in training mode.
        """
        step = get_args().curr_iteration if training else steps_that_are_over()
        return cap_at_step(self.cap, self.num_experts, self.num_steps, step)


def steps_that_are_over() -> int:
    """Training steps before this evaluation, those before the loaded checkpoint too."""
    # `iteration` is the loaded checkpoint's and stays so. `curr_iteration` is the last step's, but 0
    # after a start that has no step left to take, and absent under --skip-train.
    args = get_args()
    return max(args.iteration, getattr(args, "curr_iteration", -1) + 1)
