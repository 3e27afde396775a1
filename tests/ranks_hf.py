"""What ranks do in the tests of the Hugging Face model."""

import torch
from torch.nn.parallel import DistributedDataParallel

from hf_models import tiny_model, tokens
from remoe.hf import step_controller


def train_in_parallel(steps):
    """Each rank's micro-batches of its own lengths, in data parallelism: what lambda and S become."""
    rank = torch.distributed.get_rank()
    model = tiny_model(reg_coeff_init=0.01).train()
    wrapped = DistributedDataParallel(model)
    history = []
    for step in range(steps):
        for micro_batch in range(2):  # ranks differ in the number of their tokens
            seed = 100 * step + 10 * micro_batch + rank
            x = tokens(1 + rank, 5 + micro_batch, seed=seed)
            wrapped(input_ids=x, labels=x).loss.backward()
        sparsity = step_controller(wrapped)
        coeffs = {layer.mlp.router.reg_coeff.item() for layer in model.model.layers}
        history.append((sparsity.item(), coeffs))
    return history


def train_alone(steps, num_ranks):
    """The same micro-batches in one process, without the gradients' exchange: weights are not moved."""
    model = tiny_model(reg_coeff_init=0.01).train()
    history = []
    for step in range(steps):
        for rank in range(num_ranks):
            for micro_batch in range(2):
                seed = 100 * step + 10 * micro_batch + rank
                model(tokens(1 + rank, 5 + micro_batch, seed=seed))
        sparsity = step_controller(model)
        coeffs = {layer.mlp.router.reg_coeff.item() for layer in model.model.layers}
        history.append((sparsity.item(), coeffs))
    return history
