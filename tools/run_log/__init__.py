"""Reading, drawing and summing up the log of a training run."""
