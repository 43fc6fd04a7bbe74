"""
Documents that hold documents: lists of any kind, taken apart as kubectl does (RE-12).

To kubectl every object with ``items`` is a list, whatever its kind, and an item without a kind has that of the list:
``AuthorizationPolicyList`` holds AuthorizationPolicies. Lists in lists are taken apart too.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from authz.documents.nodes import Document, Mapping, Node, Scalar, Sequence

_LIST = "List"
_OF_LISTS = ("apiVersion", "kind", "metadata", "items")


def unfold(document: Document, note: Callable[[Node, str], None]) -> Iterator[Document]:
    """Yield the document, or what it holds if it is a list with items. ``note`` takes what is wrong and where."""
    root = document.root
    listed = _items(root) if isinstance(root, Mapping) else None
    if listed is None or not isinstance(root, Mapping):
        yield document
        return
    kind, version, items = listed
    if not isinstance(items, Sequence):
        if not items.is_null:
            note(items, f"`items` of a {kind.value} must be a list of objects")
        return
    if not items.items and "items" in root.entries:
        yield document  # says that it is empty, which a file without anything does not
        return
    own = kind.value.removesuffix(_LIST)
    for index, item in enumerate(items.items):
        prefix = f"{document.prefix}.items[{index}]" if document.prefix else f"items[{index}]"
        inside = replace(document, root=_with_kind(item, own, version), prefix=prefix)
        yield from unfold(inside, note)
    rest = {name: node for name, node in root.entries.items() if name != "items"}
    if rest.keys() - set(_OF_LISTS):  # kubectl drops what else there is, whatever it holds
        yield replace(document, root=Mapping(rest, root.keys, root.line, root.column))


def _items(root: Mapping) -> tuple[Scalar, Scalar, Node] | None:
    """Kind, API version and items of a list; None for what is not a list."""
    kind, version, items = (root.entries.get(name) for name in ("kind", "apiVersion", "items"))
    if not isinstance(kind, Scalar) or not isinstance(version, Scalar):
        return None
    if kind.value == _LIST or (kind.value.endswith(_LIST) and items is not None):
        return kind, version, items or Sequence([], root.line, root.column)
    if isinstance(items, Sequence) and any(map(_has_kind, items.items)):
        return kind, version, items
    return None


def _has_kind(node: Node) -> bool:
    return isinstance(node, Mapping) and "kind" in node.entries


def _with_kind(item: Node, kind: str, version: Scalar) -> Node:
    """Take from the list whatever the item does not say; places stay the item's own."""
    if not isinstance(item, Mapping) or not kind or {"kind", "apiVersion"} <= item.entries.keys():
        return item
    entries = dict(item.entries)
    entries.setdefault("apiVersion", Scalar(version.value, "!", item.line, item.column))
    entries.setdefault("kind", Scalar(kind, "!", item.line, item.column))
    return Mapping(entries, item.keys, item.line, item.column)
