"""
Rendered filters, shown to a real Envoy before proxies get them: ``envoy --mode validate`` on a bootstrap made for it.

Envoy itself keeps its last good filters when a file is bad, but a proxy that starts with a bad one answers 500.
"""

import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from authz.core.attributes import Json
from authz.envoy.native.binary import RUNTIME, EnvoyError, envoy_text, find_envoy

AUTO, OFF = "auto", "off"
MAX_BYTES = 1_000_000
"""Filters larger than this are shown to Envoy only if a binary is named, because it takes seconds."""
TIMEOUT_SECONDS = 120.0
_MANAGER = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ECHO: Json = {
    "name": "end", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo"},
}  # fmt: skip
Filters = tuple[dict[str, Json], ...]
"""Filters as they stand in a listener."""
_NONE: Mapping[str, Filters] = {}
_ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"


class RefusedError(EnvoyError):
    """Envoy refuses filters; the text names the workloads and says why in Envoy's words."""


@dataclass(frozen=True, slots=True)
class Validator:
    """Validates with one binary. ``most``: bytes of filters up to which it does so; None: any number."""

    binary: str
    most: int | None = None

    @classmethod
    def of(cls, how: str) -> "Validator | None":
        """
        ``auto`` takes the Envoy of this machine if there is one, ``off`` takes none; anything else is the path of one.

        Raises EnvoyError for a path that is not a program.
        """
        if how == OFF:
            return None
        if how != AUTO:
            return cls(find_envoy(how))
        try:
            return cls(find_envoy(), MAX_BYTES)
        except EnvoyError:
            return None

    def validate(self, out: Path, files: Mapping[str, bytes], network: Mapping[str, Filters] = _NONE) -> str:
        """
        Show Envoy the filters that differ from those in a state directory.

        Args:
            out: the state directory; not written to.
            files: rendered files by path below it; those that are not filters are passed over.
            network: filters of TCP ports by name of the proxy, those to be shown; in files they are within listeners.

        Returns:
            Why nothing was validated, for people; empty where it was, or nothing changed.

        Raises:
            RefusedError: Envoy refuses filters of at least one workload.
            EnvoyError: the binary cannot be run.
        """
        changed = {proxy: Shown(slots) for proxy, slots in _changed(out, files).items()}
        for proxy, filters in network.items():
            if filters:
                changed[proxy] = Shown(changed[proxy].slots if proxy in changed else {}, filters)
        size = sum(one.size for one in changed.values())
        if self.most is not None and size > self.most:
            return f"{size / 1e6:.1f} MB of filters are more than --validate auto shows to Envoy"
        if not changed or not (text := self._refusal(changed)):
            return ""
        refused = {proxy: self._refusal({proxy: one}) for proxy, one in changed.items()} if len(changed) > 1 else {}
        named = {proxy: why for proxy, why in refused.items() if why} or {", ".join(changed): text}
        raise RefusedError("; ".join(f"Envoy refuses the filters of `{proxy}`: {why}" for proxy, why in named.items()))

    def _refusal(self, changed: "Mapping[str, Shown]") -> str:
        """Envoy's text; empty when it takes them."""
        with tempfile.TemporaryDirectory(prefix="authz-validate-") as directory:
            file = Path(directory) / "envoy.json"
            file.write_text(json.dumps(bootstrap(changed)), encoding="utf-8")
            return refusal(self.binary, file)


def refusal(binary: str, file: Path) -> str:
    """
    What Envoy says of a configuration, read in the directory of its file; empty when it takes it.

    Raises EnvoyError when the binary cannot be run.
    """
    command = [binary, "-c", file.name, "--mode", "validate", "--log-level", "error"]
    command += ["--disable-hot-restart", "--concurrency", "1"]
    try:
        done = subprocess.run(  # noqa: S603  # the Envoy that was asked for
            command, cwd=file.parent, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False,
            errors="replace",
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvoyError(f"`{binary}` cannot validate: {error}") from error
    return envoy_text(done.stderr) if done.returncode else ""


def _changed(out: Path, files: Mapping[str, bytes]) -> dict[str, dict[str, bytes]]:
    """Content by slot, by workload: all slots of a workload, once one of them differs."""
    found: dict[str, dict[str, bytes]] = {}
    different = set()
    for name, data in files.items():
        if name.startswith("ecds/"):
            proxy, _, slot = name.removeprefix("ecds/").removesuffix(".json").rpartition(".")
            found.setdefault(proxy, {})[slot] = data
            path = out / name
            if not path.is_file() or path.read_bytes() != data:
                different.add(proxy)
    return {proxy: slots for proxy, slots in found.items() if proxy in different}


@dataclass(frozen=True, slots=True)
class Shown:
    """The filters of one workload that are shown to Envoy."""

    slots: Mapping[str, bytes]
    """Resources by slot."""
    network: Filters = ()

    @property
    def size(self) -> int:
        """Size in bytes."""
        return sum(map(len, self.slots.values())) + (len(json.dumps(self.network)) if self.network else 0)


def bootstrap(changed: Mapping[str, Shown]) -> dict[str, Json]:
    """A configuration with listeners for each workload, with exactly these filters."""
    listeners: list[Json] = []
    clusters: set[str] = set()
    for proxy, one in changed.items():
        filters: list[Json] = []
        for data in one.slots.values():
            for resource in json.loads(data)["resources"]:
                clusters |= set(_clusters(resource))
                filters.append({"name": resource["name"], "typed_config": resource["typed_config"]})
        listeners.append(_listener(proxy, [_manager(proxy, filters)]))
        if one.network:
            clusters |= {name for network_filter in one.network for name in _clusters(network_filter)}
            listeners.append(_listener(f"{proxy} (TCP)", [*one.network, _ECHO]))
    return {
        "node": {"id": "validate", "cluster": "validate"},
        "layered_runtime": {"layers": [{"name": "as-istio", "static_layer": dict(RUNTIME)}]},
        "static_resources": {
            "listeners": listeners,
            "clusters": [{"name": name, "type": "STATIC"} for name in sorted(clusters)],
        },
    }


def _manager(proxy: str, filters: list[Json]) -> Json:
    manager: Json = {
        "@type": _MANAGER,
        "stat_prefix": proxy,
        "route_config": {"virtual_hosts": []},
        "http_filters": [*filters, {"name": "router", "typed_config": {"@type": _ROUTER}}],
    }
    return {"name": "manager", "typed_config": manager}


def _listener(name: str, filters: list[Json]) -> Json:
    return {
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": filters}],
    }


def _clusters(content: Json) -> Iterator[str]:
    """Names of the clusters that filters ask: a bootstrap that holds nothing else lacks them."""
    if isinstance(content, list):
        for item in content:
            yield from _clusters(item)
    elif isinstance(content, dict):
        for key, value in content.items():
            name = "cluster_name" if key == "envoy_grpc" else "cluster" if key == "server_uri" else ""
            if name and isinstance(value, dict) and isinstance(value.get(name), str):
                yield str(value[name])
            else:
                yield from _clusters(value)
