"""Tables that can grow, and options that are names in them."""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

try:
    from tyro.constructors import PrimitiveConstructorSpec
except ModuleNotFoundError:  # only the command line needs it
    _Type = TypeVar("_Type")

    class PrimitiveConstructorSpec(Generic[_Type]):  # type: ignore[no-redef]
        """Stands for the class of tyro."""


# The least similarity, from 0 to 1, of names that are suggested: `difflib`'s default.
_CLOSE = 0.6
# How many equally close names are suggested; more, such as table1 to table4, are none.
_MOST_SUGGESTED = 2


def suggestion(text: str, names: Iterable[str]) -> str:
    """Returns the end of an error message: the closest names, if any is close."""
    ratios = {
        name: difflib.SequenceMatcher(None, text.casefold(), name.casefold()).ratio()
        for name in names
    }
    best = max(ratios.values(), default=0.0)
    closest = [name for name, ratio in ratios.items() if ratio == best]
    if best < _CLOSE or len(closest) > _MOST_SUGGESTED:
        return "."
    return f"; did you mean {' or '.join(closest)}?"


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


class Name(PrimitiveConstructorSpec[str]):
    """Marks a string option, by `Annotated`, as a name in a table that can grow.

    The command line offers, and checks, the names that are registered when it is read.
    """

    nargs = 1
    _names: Callable[[], Sequence[str]]
    # Returns the name that an argument with the suffix stands for.
    _parse: Callable[[str], str] | None
    _suffix: str  # of other arguments than names; empty if there are none
    _spelled: Mapping[str, str]  # on the command line, where it differs

    def __init__(
        self,
        names: Callable[[], Sequence[str]],
        parse: Callable[[str], str] | None = None,
        suffix: str = "",
        spelled: Mapping[str, str] | None = None,
    ):
        vars(self).update(  # the base is frozen
            _names=names, _parse=parse, _suffix=suffix, _spelled=spelled or {}
        )

    @property
    def _by_argument(self) -> dict[str, str]:
        return {self._spelled.get(name, name): name for name in self._names()}

    @property
    def known(self) -> tuple[str, ...]:
        """Returns the arguments that are names, and FILE with the suffix of others."""
        others = (f"FILE{self._suffix}",) if self._parse else ()
        return (*self._by_argument, *others)

    def knows(self, argument: str) -> bool:
        """Checks whether an argument is a name, or has the suffix of others."""
        is_other = self._parse is not None and argument.endswith(self._suffix)
        return is_other or argument in self._by_argument

    @property
    def choices(self) -> tuple[str, ...] | None:
        """Returns the names; None if there are other arguments."""
        return self.known if self._parse is None else None

    @property
    def metavar(self) -> str:
        """Returns the names as help shows choices."""
        others = f"|FILE{self._suffix}" if self._parse else ""
        return "{" + ",".join(self._by_argument) + "}" + others

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
