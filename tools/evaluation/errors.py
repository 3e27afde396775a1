"""What ends an evaluation or a generation with one line."""


class EvaluationError(ValueError):
    """Stops the run: one line that names the flag or file, what is wrong and how to mend it."""
