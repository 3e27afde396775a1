"""The Hugging Face model's controller over ranks."""

from ranks_hf import train_alone, train_in_parallel


def test_lambda_moves_by_the_tokens_of_all_ranks_and_is_the_same_on_each(launcher):
    """Not by rank 0's, whose buffers torch's data parallelism sends to all others."""
    first, second = launcher.ranks(2).run(train_in_parallel, 3)
    assert first == second == train_alone(3, num_ranks=2)
    assert all(len(coeffs) == 1 for _, coeffs in first)
