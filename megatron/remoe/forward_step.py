"""Forward step and loss of GPT pretraining, as Megatron's schedules call them."""

from collections.abc import Callable
from functools import partial

import torch
from megatron.core.rerun_state_machine import get_rerun_state_machine
from megatron.training import get_args, get_timers
from torch import Tensor

from megatron.remoe.gpt_data import get_batch
from megatron.remoe.micro_batch import in_forward, routers_need_these_tokens


def loss_func(loss_mask: Tensor, losses: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Sum of the token losses, number of tokens, and both for the log.

    Args:
        loss_mask: ``[b, s]``, 1 where the token counts.
        losses: Token losses ``[b, s]``.

    Returns:
        Loss sum (0-dim, fp32), number of tokens (0-dim, int), and ``{"lm loss": [2]}``, which
        Megatron adds up over micro-batches and ranks before it divides.
    """
    loss_mask = loss_mask.view(-1).float()
    loss = torch.sum(losses.view(-1).float() * loss_mask)
    if get_args().check_for_nan_in_loss_and_grad:
        check = get_rerun_state_machine().validate_result
        message = "found NaN in local forward loss calculation"
        check(result=loss, rejection_func=torch.isnan, message=message, tolerance=0.0, fatal=True)
        message = "found Inf in local forward loss calculation"
        check(result=loss, rejection_func=torch.isinf, message=message, tolerance=0.0, fatal=True)
    num_tokens = loss_mask.sum().detach().to(torch.int)
    report = torch.cat([loss.detach().view(1), num_tokens.view(1)])
    return loss, num_tokens, {"lm loss": report}


def forward_step(data_iterator, model) -> tuple[Tensor, Callable]:
    """Run one micro-batch through this pipeline stage.

    Returns:
        The stage's output and the loss function for it.
    """
    timers = get_timers()
    timers("batch-generator", log_level=2).start()
    tells_routers = routers_need_these_tokens(get_args(), model.training)
    batch, micro_batch = get_batch(data_iterator, tells_routers)
    timers("batch-generator").stop()
    with in_forward(micro_batch):
        output = model(
            batch["tokens"],
            batch["position_ids"],
            batch["attention_mask"],
            labels=batch["labels"],
            loss_mask=batch["loss_mask"],
        )
    return output, partial(loss_func, batch["loss_mask"])
