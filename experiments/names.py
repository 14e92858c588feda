"""The type of options that are names in a table."""

from experiments.jobs.errors import UsageError


class Name(str):
    """A name that the command line offers and checks when it is read.

    A table that can grow has a subclass. Type checkers see a plain string in its place,
    which is what such an option holds.
    """

    others: str | None = None  # what may be given besides, as help denotes it

    @classmethod
    def choices(cls) -> tuple[str, ...]:
        """Returns the names that the table has now."""
        raise NotImplementedError

    @classmethod
    def parse(cls, text: str) -> str:
        """Returns the name that an argument stands for.

        Raises:
          UsageError: if there is none.
        """
        if text not in cls.choices():
            raise UsageError(
                f"invalid choice {text!r}. Expected one of {', '.join(cls.choices())}."
            )
        return text
