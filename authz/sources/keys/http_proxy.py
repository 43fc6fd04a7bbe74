"""
The proxy between this machine and an issuer: a setting, or what ``HTTPS_PROXY`` and the like say.

``NO_PROXY`` is read as curl and Go read it: ``*``, host names with all names below them, addresses and networks, each
with or without a port. This machine is never reached through a proxy.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

import httpx

from authz.core.errors import SettingsError

NONE = "none"
"""The setting that uses no proxy, whatever the environment says."""


@dataclass(frozen=True, slots=True)
class Proxies:
    """Proxies by scheme of what is fetched; empty for none."""

    http: str = ""
    https: str = ""
    exceptions: tuple[str, ...] = ()
    origin: str = ""
    """Where that is set, for people."""

    @classmethod
    def of(cls, setting: str, environment: Mapping[str, str]) -> "Proxies":
        """
        The setting wins over the environment.

        Raises:
            SettingsError: a proxy that is not an http(s) URL.
        """
        if setting == NONE:
            return cls()
        if setting:
            proxy = _url(setting, "setting `jwks_proxy`")
            return cls(proxy, proxy, (), "setting `jwks_proxy`")
        names = {scheme: _first(environment, f"{scheme}_proxy", "all_proxy") for scheme in ("http", "https")}
        found = {scheme: _url(environment[name], f"`{name}`") if name else "" for scheme, name in names.items()}
        no_proxy = _first(environment, "no_proxy")
        exceptions = tuple(part.strip() for part in environment.get(no_proxy, "").split(",") if part.strip())
        origin = ", ".join(dict.fromkeys(name for name in (names["https"], names["http"]) if name))
        return cls(found["http"], found["https"], exceptions, origin)

    def __bool__(self) -> bool:
        return bool(self.http or self.https)

    def for_url(self, url: httpx.URL) -> str:
        """URL of the proxy for a request; empty for a direct one."""
        proxy = self.https if url.scheme == "https" else self.http
        if not proxy or is_this_machine(url.host):
            return ""
        port = url.port or (443 if url.scheme == "https" else 80)
        return "" if any(_is_exception(rule, url.host, port) for rule in self.exceptions) else proxy

    def __str__(self) -> str:
        """The address for the log, without credentials."""
        shown = " and ".join(dict.fromkeys(_without_user(proxy) for proxy in (self.https, self.http) if proxy))
        excepted = f", except for {', '.join(self.exceptions)} and this machine" if self.exceptions else ""
        return f"{shown} ({self.origin}){excepted}"


NO_PROXIES = Proxies()


def is_this_machine(host: str) -> bool:
    """Loopback addresses, and names that can mean nothing else."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ip_address(name)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _is_exception(rule: str, host: str, port: int) -> bool:
    if rule == "*":
        return True
    name, host = rule.lower(), host.strip("[]").rstrip(".").lower()
    head, colon, tail = name.rpartition(":")
    if colon and tail.isdigit() and (":" not in head or head.endswith("]")):
        if int(tail) != port:
            return False
        name = head
    name = name.strip("[]")
    try:
        return ip_address(host) in ip_network(name, strict=False)
    except ValueError:
        name = name.removeprefix("*").lstrip(".")
        return bool(name) and (host == name or host.endswith(f".{name}"))


def _first(environment: Mapping[str, str], *names: str) -> str:
    """The first variable that is set; lower case counts before upper case, as for other programs."""
    return next((form for name in names for form in (name, name.upper()) if environment.get(form)), "")


def _url(written: str, where: str) -> str:
    text = written if "://" in written else f"http://{written}"
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        url = httpx.URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise SettingsError(f"{where}: not a proxy of the form http://host:port; write `none` to use no proxy")
    return text


def _without_user(proxy: str) -> str:
    return str(httpx.URL(proxy).copy_with(userinfo=b""))
