"""Tables that can grow, and options that are names in them."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import tyro


class _Named(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def parent(self) -> str | None: ...


_Entry = TypeVar("_Entry", bound=_Named)


class Registry(dict[str, _Entry]):
    """Entries by name, which all commands know."""

    def register(self, *entries: _Entry) -> None:
        """Adds entries.

        Raises:
          ValueError: if there is another one of the name, or none of the parent's.
        """
        new = {entry.name: entry for entry in entries}
        for name, entry in new.items():
            if self.get(name, entry) != entry:
                raise ValueError(f"`name` must be new, got {name!r} once more.")
            if entry.parent not in (None, *self, *new):
                raise ValueError(f"`parent` must be registered, got {entry.parent!r}.")
        self.update(new)


class Name(tyro.constructors.PrimitiveConstructorSpec[str]):
    """Marks a string option, by `Annotated`, as a name in a table that can grow.

    The command line offers and checks the names that there are when it is read.

    Args:
      names: returns them.
      parse: returns the name that another argument stands for, or raises a
        `UsageError`; None allows no other argument.
      others: such arguments, as help denotes them.
    """

    nargs = 1
    _names: Callable[[], Sequence[str]]
    _parse: Callable[[str], str] | None
    _others: str

    def __init__(
        self,
        names: Callable[[], Sequence[str]],
        parse: Callable[[str], str] | None = None,
        others: str = "",
    ):
        # The base is frozen.
        vars(self).update(_names=names, _parse=parse, _others=others)

    @property
    def choices(self) -> tuple[str, ...] | None:
        """The names; None if others are checked by themselves."""
        return tuple(self._names()) if self._parse is None else None

    @property
    def metavar(self) -> str:
        """The names, as help has choices."""
        return "{" + ",".join(self._names()) + "}" + self._others

    def instance_from_str(self, arguments: Sequence[str]) -> str:
        """Returns the name that an argument stands for."""
        [name] = arguments
        if self._parse is None or name in self._names():
            return name
        return self._parse(name)

    def is_instance(self, instance: object) -> bool:
        """Returns whether a default is a string."""
        return isinstance(instance, str)

    def str_from_instance(self, instance: str) -> list[str]:
        """Returns a default as arguments."""
        return [instance]
