"""What a trained model can do and what it costs: tasks, perplexity by domain, active experts, FLOPs."""
