"""Parts of a document that another room understands: YAML nodes become plain data that knows where it was written."""

from authz.core.attributes import Json
from authz.core.errors import Location
from authz.documents.accessors import Part
from authz.documents.reading import Kind, Node, Scalar, Sequence
from authz.documents.schema import describe
from authz.mesh.extensions import WrittenAt, WrittenValue

MOST_NODES = 100_000
"""Of one value, aliases counted as often as they stand there."""


def origin_of(part: Part, field: str = "") -> WrittenAt:
    """Where a field of a part, or the part itself, was written."""
    node = part.node.entries.get(field) or part.node
    path = ".".join(filter(None, (part.path, field)))
    return WrittenAt(part.notes.place(node), part.notes.document.number, part.notes.resource, path)


def read_value(part: Part, field: str) -> WrittenValue | None:
    """A mapping as plain data with places; None, and a problem noted, where it is not one."""
    found = part.part(field, required=True)
    if found is None:
        return None
    places: dict[str, Location] = {}
    keys: dict[str, Location] = {}
    left = [MOST_NODES]

    def plain(node: Node, path: str) -> Json:
        left[0] -= 1
        if left[0] < 0:
            return None
        places.setdefault(path, part.notes.place(node))
        if isinstance(node, Scalar):
            return _scalar(node)
        if isinstance(node, Sequence):
            return [plain(item, f"{path}[{i}]") for i, item in enumerate(node.items)]
        made: dict[str, Json] = {}
        for key in node.keys:
            below = child_path(path, key.value)
            keys.setdefault(below, part.notes.place(key))
            made[key.value] = plain(node.entries[key.value], below)
        return made

    data = plain(found.node, "")
    if left[0] < 0:
        part.note("ME-1", f"`{field}` has more than {MOST_NODES} parts", field, "split it into several patches")
        return None
    return WrittenValue(data, origin_of(part, field), places, keys)


def child_path(path: str, name: str) -> str:
    """The path of a field, as documents write it."""
    if not name or any(c in name for c in ".[]/ "):
        return f"{path}[{name}]"
    return f"{path}.{name}" if path else name


def read_labels(spec: Part, field: str, inner: str) -> dict[str, str] | None:
    """A selector's labels; None, which selects everything, where there is no selector."""
    selector = spec.part(field)
    if selector is None:
        return None
    selector.only(inner)
    return selector.strings(inner)


def read_signed(part: Part, field: str) -> int | None:
    """A whole number of 32 bits; None where there is none, and, with a problem noted, for a wrong one."""
    if not part.has(field):
        return None
    node = part.node.entries[field]
    value = _scalar(node) if isinstance(node, Scalar) else None
    if isinstance(value, int) and not isinstance(value, bool) and -(2**31) <= value < 2**31:
        return value
    part.note("ME-1", f"expected a whole number of 32 bits, got {describe(node)}", field)
    return None


def _scalar(node: Scalar) -> Json:
    if node.is_null:
        return None
    if node.kind is Kind.BOOLEAN:
        return node.is_true
    if node.kind is Kind.NUMBER:
        return _number(node.value.replace("_", ""))
    return node.value


def _number(text: str) -> int | float | str:
    digits = text.lstrip("+-")
    sign = -1 if text.startswith("-") else 1
    try:
        if digits[:2].lower() in ("0x", "0b", "0o"):
            return sign * int(digits, 0)
        if digits.isdigit():
            octal = len(digits) > 1 and digits[0] == "0" and all(c in "01234567" for c in digits)
            return sign * int(digits, 8 if octal else 10)
        return float(text.replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:
        return text
