"""The two ways in which input data can be wrong: fatal, or confined to one document."""


class DataError(ValueError):
    """Stops the run: one line that names the file or flag, what is wrong and how to mend it."""


class BadDocumentError(ValueError):
    """One document that cannot be used; its message is the reason without the place."""
