"""Whatever the tests of this room render, the library that describes Envoy's messages looks at."""

from collections.abc import Iterator
from typing import Any

import pytest
from betterproto2 import Message

from authz.envoy import messages
from authz.envoy.light_messages import check, lighten
from authz.envoy.plain import KeptStruct, Packed, plain


@pytest.fixture(scope="session", autouse=True)
def _checked() -> Iterator[None]:
    lighten()
    shared: dict[int, Message] = {}

    def checked(message: Message) -> Any:
        look(message, shared)
        return plain(message)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(messages, "plain", checked)
        yield


def look(found: object, shared: dict[int, Message]) -> None:
    """Check a message and all in it; what many have in common once."""
    if isinstance(found, list):
        for one in found:
            look(one, shared)
    elif isinstance(found, dict):
        look(list(found.values()), shared)
    elif isinstance(found, Message) and id(found) not in shared:
        if "_kept" in vars(found):
            shared[id(found)] = found
        if isinstance(found, Packed):
            look(found.message, shared)
        elif not isinstance(found, KeptStruct):
            check(found)
            look(list(vars(found).values()), shared)
