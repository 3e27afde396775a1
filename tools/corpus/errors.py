"""The two ways in which building a corpus goes wrong."""


class CorpusError(ValueError):
    """The request cannot be met; the message says what was wrong and how to mend it."""


class SourceUnavailableError(Exception):
    """One source cannot be had on this machine; the build goes on without it."""
