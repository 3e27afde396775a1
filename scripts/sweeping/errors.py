"""The error that a user of a sweep can mend."""


class SweepError(ValueError):
    """Said in one line, without a traceback."""
