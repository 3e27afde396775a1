"""Trains the routers of a new ReMoE model, and nothing else, until they hold their target sparsity."""

import torch
from torch import Tensor, nn

from remoe.hf import reset_counts, step_controller
from ways_in.measuring import routers_of

TOKENS_A_STEP = 2048
# What one of Adam's steps moves a logit by at most, for hidden states behind a norm. 0.4 was too
# much, and so was a share of the weights' size: the first layer's are large (experiments/ways_in).
LOGIT_STEP = 0.1
REG_COEFF_INIT = 1e-2
REG_COEFF_MULTIPLIER = 1.1


def tune_routers(model: nn.Module, sequences: Tensor, num_steps: int) -> None:
    """Train the routers by the model's own loss, with its L1 loss and controller.

    A fit matches the gates of each layer alone; this finds the ones that matter for the next token.
    Lambda is left where the controller brought it: what training is to go on from.

    Args:
        model: ReMoE model; routers and lambda are changed in place, all else stays frozen and as it was.
        sequences: To train on, ``[num_sequences, sequence_length]``; taken in turn, again and again.
        num_steps: Steps of about `TOKENS_A_STEP` tokens; 0 leaves the model as it is.
    """
    if not num_steps:
        return
    routers = routers_of(model)
    needed_gradients = [parameter.requires_grad for parameter in model.parameters()]
    multiplier, model.config.reg_coeff_multiplier = (
        model.config.reg_coeff_multiplier,
        REG_COEFF_MULTIPLIER,
    )
    model.requires_grad_(False)
    dtype = routers[0].weight.dtype
    for router in routers:
        router.weight.data = router.weight.data.float()  # bf16 does not see a step of 1%
        router.weight.requires_grad_(True)
        router.reg_coeff.fill_(REG_COEFF_INIT)
    model.train()
    _train(model, routers, sequences, num_steps)
    model.eval()
    for router in routers:
        router.weight.data = router.weight.data.to(dtype)
    for parameter, needed in zip(model.parameters(), needed_gradients, strict=True):
        parameter.requires_grad_(needed)
        parameter.grad = None
    model.config.reg_coeff_multiplier = multiplier


def _train(model: nn.Module, routers: list[nn.Module], sequences: Tensor, num_steps: int) -> None:
    weights = [router.weight for router in routers]
    optimizer = torch.optim.Adam(weights, lr=LOGIT_STEP / model.config.hidden_size)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, num_steps)
    per_step = max(1, TOKENS_A_STEP // sequences.shape[1])
    order = torch.randperm(len(sequences), generator=torch.Generator().manual_seed(0))
    reset_counts(model)
    for step in range(num_steps):
        rows = torch.arange(step * per_step, (step + 1) * per_step) % len(sequences)
        batch = sequences[order[rows]].to(model.device)
        optimizer.zero_grad()
        model(input_ids=batch, labels=batch, use_cache=False).loss.backward()
        optimizer.step()
        # Smaller and smaller, like the weights' steps, so that sparsity ends at its target.
        share = decay.get_last_lr()[0] * model.config.hidden_size / LOGIT_STEP
        model.config.reg_coeff_multiplier = 1 + (REG_COEFF_MULTIPLIER - 1) * share
        step_controller(model)
        decay.step()
