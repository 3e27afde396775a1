"""What a run gets done in a second, in training and in evaluation, and the memory it takes."""
