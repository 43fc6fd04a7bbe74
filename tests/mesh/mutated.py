"""Documents with one or two things changed, as a slip of the hand or of a generator would change them; seeded."""

import copy
import random
from collections.abc import Iterator
from typing import Any

import yaml

Json = Any
_ODD: tuple[Json, ...] = (
    *(None, True, False, 0, -1, 1.5, 99999999999, 2**32, "", " ", "x", "a/b", "*", "1s", "-1s", "0s", "1.5", "é"),
    *([], {}, ["x"], [None], {"x": "y"}, "UPGRADE", "DISABLE", "x" * 300, "a\nb", "0.0001s"),
)


def mutants(documents: list[Json], count: int, seed: int) -> Iterator[str]:
    """So many YAML texts, each one of ``documents`` (plain data) with one or two changes below ``spec``."""
    chance = random.Random(seed)
    for _ in range(count):
        document = copy.deepcopy(chance.choice(documents))
        for _ in range(chance.choice((1, 1, 2))):
            _change(document["spec"], chance)
        yield yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def _change(root: Json, chance: random.Random) -> None:
    places = list(_places(root))
    if not places:
        return
    holder, key = chance.choice(places)
    match chance.randrange(6):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[f"{key}s"] = holder.pop(key)
        case 2 if isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        case 3:
            holder[key] = [holder[key]]
        case 4:
            _, other = chance.choice(places)
            holder[key] = {other: copy.deepcopy(holder[key])} if isinstance(other, str) else None
        case _:
            holder[key] = copy.deepcopy(chance.choice(_ODD))


def _places(node: Json) -> Iterator[tuple[Json, Json]]:
    entries = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in list(entries):
        yield node, key
        yield from _places(value)
