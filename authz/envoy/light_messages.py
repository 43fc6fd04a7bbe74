"""
Envoy's typed messages without what their library does to make one, which was most of the time of a rendering.

The library lets pydantic look at every value of every message, and sets every field. Here a message holds what it was
given and finds the rest in its class. A field that no such message has is a TypeError as before; that values are of
their field's type, the type checker says of our code; that a number is within its field's range, ``plain`` says when
it is written. ``check`` is the library's own word on a message, and the tests ask it of everything that they render.
"""

import warnings
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import betterproto2
from envoy_data_plane.message_pool import default_message_pool

Constructor = Callable[..., None]
_checking: dict[type[betterproto2.Message], Constructor] = {}
"""The library's own constructors of the kinds that are light."""


class _Fresh:
    """A list or mapping that a message gets when somebody first looks for it."""

    def __init__(self, name: str, make: Callable[[], Any]) -> None:
        self.name, self.make = name, make

    def __get__(self, message: object, _kind: type) -> Any:
        if message is None:
            raise AttributeError(self.name)  # as for any field of a dataclass that has no fixed default
        made = self.make()
        vars(message)[self.name] = made
        return made


def lighten() -> None:
    """Make light every kind of message that has been imported."""
    for kind in default_message_pool.type_to_url:
        if kind not in _checking:
            _checking[kind] = kind.__init__
            kind.__init__ = _first  # type: ignore[method-assign,assignment]  # what this file is for
            # The library's own refuses what is kept beside the fields.
            kind._validate = check  # type: ignore[method-assign,assignment]  # called with the message alone


def check(message: betterproto2.Message) -> None:
    """Let the library look at the values of a message, not at those of the messages in it. Raises ValueError."""
    kind = next(one for one in type(message).__mro__ if one in _checking)
    light = kind.__init__
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a warning, and about Envoy's own fields
        try:
            _checking[kind](kind.__new__(kind), **{name: one for name, one in vars(message).items() if name[0] != "_"})
        finally:
            kind.__init__ = light  # type: ignore[method-assign]  # pydantic puts its own back when it is first used


def _first(message: betterproto2.Message, *first: Any, **given: Any) -> None:
    """Construct the first message of a kind: find out what there is to know of it."""
    kind = next(one for one in type(message).__mro__ if one in _checking)
    _prepare(kind)
    kind.__init__(message, *first, **given)


def _prepare(kind: type[betterproto2.Message]) -> None:
    makers: dict[str, Any] = {one.name: one.default_factory for one in fields(kind)}  # type: ignore[arg-type]  # each is a dataclass
    names = makers.keys()
    for name, make in makers.items():
        value = make()
        setattr(kind, name, _Fresh(name, make) if isinstance(value, list | dict) else value)

    def construct(message: betterproto2.Message, *first: Any, **given: Any) -> None:
        if first:
            given |= dict(zip(names, first, strict=False))
        if not given.keys() <= names:
            raise TypeError(f"{kind.__name__} has no field {', '.join(sorted(given.keys() - names))}")
        given["_unknown_fields"] = b""  # the library looks for it when it writes bytes
        vars(message).update(given)

    kind.__init__ = construct  # type: ignore[method-assign,assignment]  # as above
