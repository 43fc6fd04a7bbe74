"""
What every proxy of a mesh may discover, made from the files that are rendered for it.

A proxy gets its listeners and clusters, what these name, what that names, and nothing else: the files that it would
follow. A resource that several proxies have, such as the endpoints of a service, is the same object with the same bytes
in all their worlds. What was made of a file stays as long as its content is the very object of before.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import is_
from typing import Any

from authz.control.discovery.discovered import CLUSTER_TYPE, Discovered, ProxyWorld
from authz.core.spiffe import SpiffeId
from authz.envoy.control_plane_source import file_sources, followed_paths, point_to_control, roots_of
from authz.envoy.packed_tree import packed
from authz.mesh.nouns import MeshWorkload

ROOTS_FILE = "sds/roots.yaml"
"""Rendered once for the mesh; here every proxy has its own, beside its certificate."""
DISCOVERED = ("cds/", "eds/", "lds/", "rds/", "ecds/", "sds/")
"""Directories of rendered files that become resources."""
_TYPE = "@type"


@dataclass(frozen=True, slots=True)
class FleetMember:
    """One proxy: who may ask for its world, and the world."""

    name: str
    """Its workload's, and its ``node.id``."""
    spiffe_id: SpiffeId
    world: ProxyWorld = field(repr=False, compare=False)


Fleet = Mapping[str, FleetMember]
"""Every proxy of the mesh by name."""


@dataclass(frozen=True, slots=True)
class _Made:
    """What a file has become."""

    content: bytes
    resources: tuple[tuple[str, Discovered], ...]
    """With their type URLs."""
    named: tuple[str, ...]
    """The files that it names."""


_Uses = dict[str, _Made]
"""The files of a proxy by name: its listeners and clusters, and what is named from there, in that order."""


@dataclass(slots=True)
class _Making:
    """What files have become so far."""

    by_name: dict[str, _Made] = field(default_factory=dict)
    by_content: dict[int, _Made] = field(default_factory=dict)
    """By identity: the filters of proxies with the same policies are one object."""


@dataclass(slots=True)
class FleetSnapshot:
    """The fleet as it was last made; ``make`` makes what differs."""

    _made: dict[str, _Made] = field(default_factory=dict)
    _uses: dict[str, _Uses] = field(default_factory=dict)
    _members: dict[str, FleetMember] = field(default_factory=dict)
    _roots: dict[str, tuple[str, Discovered]] = field(default_factory=dict)

    def make(
        self,
        workloads: Iterable[MeshWorkload],
        files: Mapping[str, bytes],
        some: Iterable[MeshWorkload] | None = None,
    ) -> Fleet:
        """
        The proxies of these workloads, or of some of them.

        Args:
            workloads: those of the mesh.
            files: as ``render_all`` renders them for ``Listeners.ADS``.
            some: those whose own files alone may be other than last time; None: any file may.

        Returns:
            By name, and the caller's own: everybody, or those of ``some`` alone. A member whose world is as it was is
            the very object of before.

        Raises:
            Unpackable: a type is not known here.
        """
        made = _Making()
        uses: dict[str, _Uses] = {}
        members: dict[str, FleetMember] = {}
        for workload in workloads if some is None else some:
            name = workload.name
            before, used_before = self._members.get(name), self._uses.get(name, {})
            known = None if some is None else self._renewed(used_before, files, made)
            used = uses[name] = known or dict(self._used(name, files, made))
            if before is not None and before.spiffe_id == workload.spiffe_id and _same(used, used_before):
                members[name] = before
                continue
            world = _replaced(before.world, used_before, used) if before is not None and known else None
            if world is None:
                world = _kept(self._world(name, used.values()), before.world if before else {})
            members[name] = FleetMember(name, workload.spiffe_id, world)
        if some is not None:
            self._made |= made.by_name
            self._uses |= uses
            self._members |= members
            return members
        self._roots = {name: self._roots[name] for name in members if name in self._roots}
        self._made, self._uses, self._members = made.by_name, uses, members
        return dict(members)

    def _renewed(self, before: _Uses, files: Mapping[str, bytes], made: _Making) -> _Uses | None:
        """The files of a proxy where their names are those of before; None where that must be looked at."""
        found = before
        for name, one in before.items():
            content = files.get(name)
            if content is one.content:
                continue
            if content is None:
                return None
            new = made.by_name.get(name)
            if new is None:
                new = made.by_name[name] = self._read(name, files, made)
            if new.named != one.named:
                return None
            found = {**found, name: new}
        return found

    def _used(self, proxy: str, files: Mapping[str, bytes], made: _Making) -> Iterator[tuple[str, _Made]]:
        """The files of a proxy: its listeners and clusters, and what is named from there."""
        todo = [f"cds/{proxy}.yaml", f"lds/{proxy}.yaml"]
        seen = set(todo)
        while todo:
            name = todo.pop()
            one = made.by_name.get(name)
            if one is None:
                if name not in files:
                    continue
                one = made.by_name[name] = self._read(name, files, made)
            yield name, one
            new = [other for other in one.named if other not in seen]
            seen.update(new)
            todo += new

    def _read(self, name: str, files: Mapping[str, bytes], made: _Making) -> _Made:
        content = files[name]
        for known in (self._made.get(name), made.by_content.get(id(content))):
            if known is not None and known.content is content and all(other in files for other in known.named):
                return known
        trees = _resources(content)
        sources = file_sources(trees)
        named = tuple(dict.fromkeys(path for path in followed_paths(sources) if _is_discovered(path, files)))
        point_to_control(sources, (*named, ROOTS_FILE))
        if name == ROOTS_FILE:
            return _Made(content, (), named)
        one = made.by_content[id(content)] = _Made(content, tuple(map(_packed, trees)), named)
        return one

    def _world(self, proxy: str, used: Iterable[_Made]) -> ProxyWorld:
        world: dict[str, dict[str, Discovered]] = {}
        for url, resource in (*(pair for one in used for pair in one.resources), self._roots_of(proxy)):
            world.setdefault(url, {})[resource.name] = resource
        return world

    def _roots_of(self, proxy: str) -> tuple[str, Discovered]:
        """Unused where a proxy speaks no mutual TLS: then nobody asks."""
        found = self._roots.get(proxy)
        if found is None:
            found = self._roots[proxy] = _packed(roots_of(proxy))
        return found


def _kept(world: ProxyWorld, before: ProxyWorld) -> ProxyWorld:
    """The world in which types that are as they were are the very objects of before: a stream looks at others alone."""
    return {url: old if (old := before.get(url)) == new else new for url, new in world.items()}


def _replaced(world: ProxyWorld, before: _Uses, used: _Uses) -> ProxyWorld | None:
    """
    The world in which what some files have become is replaced: with filters alone it costs less than a new one.

    None where a file has other resources than before, or one that another file has as well.
    """
    if len({*map(id, before.values())}) < len(before):
        return None
    types: dict[str, Mapping[str, Discovered]] = dict(world)
    for name, one in used.items():
        old = before[name]
        if one is old:
            continue
        if len(one.resources) != len(old.resources):
            return None
        for (url, new), (url_before, found) in zip(one.resources, old.resources, strict=True):
            if url != url_before or new.name != found.name or types[url].get(new.name) is not found:
                return None
            if new is not found and new != found:
                types[url] = {**types[url], new.name: new}
    return types


def _is_discovered(path: str, files: Mapping[str, bytes]) -> bool:
    return path in files and path.startswith(DISCOVERED)


def _same(used: _Uses, before: _Uses) -> bool:
    return len(used) == len(before) and all(map(is_, used.values(), before.values()))


def _resources(content: bytes) -> list[dict[str, Any]]:
    """The trees of a rendered file, which is JSON behind a line of comment, or wholly."""
    text = content.partition(b"\n")[2] if content.startswith(b"#") else content
    found: list[dict[str, Any]] = json.loads(text)["resources"]
    return found


def _packed(tree: dict[str, Any]) -> tuple[str, Discovered]:
    url, message = packed(tree)
    name = tree.get("name") or tree["cluster_name"]
    awaited: tuple[str, ...] = ()
    if url == CLUSTER_TYPE and "eds_cluster_config" in tree:
        awaited = (tree["eds_cluster_config"].get("service_name") or name,)
    return url, Discovered.pack(url, name, message, awaited)
