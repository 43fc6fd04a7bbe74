"""
The policy version: a short digest of what the documents and mesh settings mean.

It does not change with the order of files or keys, comments, layout, file names or places, nor with metadata that has
no effect (RE-4); so two workers that show the same version decide the same.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from enum import StrEnum
from functools import cache
from operator import attrgetter

from authz.core.resources import DRY_RUN_ANNOTATION, MeshConfig, Metadata, Resources

LENGTH = 12
_WITHOUT_INFLUENCE = ("location", "version", "problems", "written", "introspection")


def policy_version(resources: Resources, mesh: MeshConfig) -> str:
    """The first twelve hexadecimal digits of the SHA-256 of everything that was read."""
    objects = [*resources.authorization_policies, *resources.request_authentications, *resources.peer_authentications]
    return version_of(map(facts_digest, objects), mesh)


def version_of(facts: Iterable[bytes], mesh: MeshConfig) -> str:
    """The same, if the meaning of each resource is already known by ``facts_digest``."""
    digest = hashlib.sha256(repr(facts_of(mesh)).encode())
    digest.update(b"".join(sorted(facts)))
    return digest.hexdigest()[:LENGTH]


def facts_digest(resource: object) -> bytes:
    """The SHA-256 of what one resource means."""
    return hashlib.sha256(repr(facts_of(resource)).encode("utf-8", "surrogatepass")).digest()


@cache
def _reader(kind: type) -> Callable[[object], tuple[object, ...]]:
    names = [field.name for field in fields(kind) if field.name not in _WITHOUT_INFLUENCE]
    return attrgetter(*names)


def facts_of(value: object) -> object:
    """Reduce a value to what it means, as plain values; the texts in it stay the same objects."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, tuple):
        if not value or type(value[0]) is str:
            return value
        return tuple(map(facts_of, value))
    if isinstance(value, Metadata):
        dry_run = value.annotations.get(DRY_RUN_ANNOTATION, "")
        return (value.name, value.namespace, value.creation_timestamp, dry_run)
    if isinstance(value, Mapping):
        return sorted((key, facts_of(item)) for key, item in value.items())
    if isinstance(value, StrEnum):
        return value.value
    kind: type = type(value)
    return (kind.__name__, *map(facts_of, _reader(kind)(value)))
