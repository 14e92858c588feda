"""The error that a user can mend, shown without a traceback."""


class UsageError(ValueError):
    """A wrong option or missing data; the message says what to do about it."""
