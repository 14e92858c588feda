"""Tables that can grow, and options that are names in them."""

from collections.abc import Callable, Mapping, Sequence
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
        """Adds entries of new names, whose parents are registered too."""
        new = {entry.name: entry for entry in entries}
        for name, entry in new.items():
            if self.get(name, entry) != entry:
                raise ValueError(f"`name` must be new, got {name!r} once more.")
            if entry.parent not in (None, *self, *new):
                raise ValueError(f"`parent` must be registered, got {entry.parent!r}.")
        self.update(new)


class Name(tyro.constructors.PrimitiveConstructorSpec[str]):
    """Marks a string option, by `Annotated`, as a name in a table that can grow.

    The command line offers, and checks, the names that are registered when it is read.
    """

    nargs = 1
    _names: Callable[[], Sequence[str]]
    # Returns the name that another argument stands for; None allows no other.
    _parse: Callable[[str], str] | None
    _others: str  # such arguments, as help denotes them
    _spelled: Mapping[str, str]  # on the command line, where it differs

    def __init__(
        self,
        names: Callable[[], Sequence[str]],
        parse: Callable[[str], str] | None = None,
        others: str = "",
        spelled: Mapping[str, str] | None = None,
    ):
        vars(self).update(  # the base is frozen
            _names=names, _parse=parse, _others=others, _spelled=spelled or {}
        )

    @property
    def _by_argument(self) -> dict[str, str]:
        return {self._spelled.get(name, name): name for name in self._names()}

    @property
    def choices(self) -> tuple[str, ...] | None:
        """Returns the names; None if others are checked by themselves."""
        return tuple(self._by_argument) if self._parse is None else None

    @property
    def metavar(self) -> str:
        """Returns the names as help shows choices."""
        return "{" + ",".join(self._by_argument) + "}" + self._others

    def instance_from_str(self, arguments: Sequence[str]) -> str:
        """Returns the name that an argument stands for."""
        [argument] = arguments
        names = self._by_argument
        if self._parse is None or argument in names:
            return names[argument]
        return self._parse(argument)

    def is_instance(self, instance: object) -> bool:
        """Checks whether a default is a string."""
        return isinstance(instance, str)

    def str_from_instance(self, instance: str) -> list[str]:
        """Returns a default as arguments."""
        return [self._spelled.get(instance, instance)]
