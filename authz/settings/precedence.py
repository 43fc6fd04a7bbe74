"""Read settings from all their sources: defaults < file < environment < flags."""

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from authz.core.errors import SettingsError
from authz.settings.sections import PATHS, flatten
from authz.settings.settings import Settings

PREFIX = "AUTHZ_"


def read_settings(
    flags: Mapping[str, Any], *, file: Path | None = None, environment: Mapping[str, str] | None = None
) -> Settings:
    """
    Read all sources.

    Args:
        flags: by field name; None means not given.
        file: YAML mapping by field name, or in sections (``settings.sections``).
        environment: ``AUTHZ_<FIELD>``; None reads the process's.

    Raises:
        SettingsError: names every unusable or unknown setting.
    """
    told: dict[str, Any] = {}
    if file is not None:
        told.update(_from_file(file))
    told.update(_from_environment(os.environ if environment is None else environment))
    told.update({name: value for name, value in flags.items() if value is not None})
    try:
        settings = Settings(**told)
    except ValidationError as error:
        raise SettingsError("; ".join(_complaint(line) for line in error.errors())) from None
    if (settings.tls_certificate is None) is not (settings.tls_key is None):
        raise SettingsError("`tls_certificate` and `tls_key` must be given together or not at all")
    if (settings.admin_tls_certificate is None) is not (settings.admin_tls_key is None):
        raise SettingsError("`admin_tls_certificate` and `admin_tls_key` must be given together or not at all")
    if settings.admin_tls_client_ca is not None and settings.admin_tls_certificate is None:
        raise SettingsError("`admin_tls_client_ca` needs `admin_tls_certificate` and `admin_tls_key`")
    if settings.tls_client_ca is not None and settings.tls_certificate is None:
        raise SettingsError("`tls_client_ca` needs `tls_certificate` and `tls_key`")
    _check_access_logs(settings)
    _check_published(settings)
    if settings.rate_limits and settings.mesh is None and "://" not in settings.policies:
        raise SettingsError("`rate_limits` needs `mesh`: the limits are part of the mesh description")
    if settings.peer_certificate != "off" and not settings.peer_trust_bundles:
        raise SettingsError("`peer_certificate` needs `peer_trust_bundles`: nobody would be trusted")
    return settings


def _is_file(carrier: str) -> bool:
    return carrier.startswith("file:")


def _check_access_logs(settings: Settings) -> None:
    """Refuse what could not be counted or kept rightly."""
    on_listen = "grpc" in settings.access_logs
    if not settings.listen:
        if not settings.access_logs and not settings.rate_limits:
            raise SettingsError("`listen: none` needs `access_logs` or `rate_limits`: there would be nothing to do")
        if on_listen:
            raise SettingsError(
                "`access_logs: grpc` receives on `listen`, which is none; give it an address of its own"
            )
        if settings.server == "envoy":
            raise SettingsError("`server: envoy` has nothing to host with `listen: none`; leave it out")
    if on_listen and settings.server == "envoy":
        raise SettingsError(
            "`access_logs: grpc` receives on `listen`, which needs `server: grpcio`; give it an address of its own, "
            "`grpc:HOST:PORT` or `grpc:unix:PATH`"
        )
    if on_listen and settings.access_log_admin and settings.workers != 1:
        raise SettingsError(
            "`access_log_admin` with `access_logs: grpc` needs `workers: 1`, since each of several workers sees a "
            "part; or give it an address of its own, `grpc:HOST:PORT` or `grpc:unix:PATH`, which one worker opens"
        )
    if settings.access_log_positions is not None and sum(_is_file(name) for name in settings.access_logs) > 1:
        raise SettingsError("`access_log_positions` is for one directory; without it each directory keeps its own")


def _check_published(settings: Settings) -> None:
    """Refuse what says how published policies are trusted where policies are a path, and nothing is fetched."""
    if "://" not in settings.policies:
        given = sorted(name for name in settings.model_fields_set if name.startswith("policies_"))
        if given:
            raise SettingsError(f"`{given[0]}` is for policies that are published, and `policies` is a path")


class _Repeated(yaml.MarkedYAMLError):
    """A name that stands twice in one mapping; YAML's reader would take the last, whichever is the stricter."""


class _Loader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        names: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in names:
                    raise _Repeated(problem=f"`{key.value}` is given twice", problem_mark=key.start_mark)
                names.add(key.value)
        return node


def _from_file(file: Path) -> dict[str, Any]:
    try:
        told = yaml.load(file.read_bytes(), _Loader)  # noqa: S506  # a safe loader, and a stricter one
    except OSError as error:
        raise SettingsError(f"`{file}` cannot be read: {error.strerror}") from error
    except RecursionError:
        raise SettingsError(f"`{file}` is nested too deeply for settings") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"`{file}`:{mark.line + 1}:{mark.column + 1}" if mark else f"`{file}`"
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        if isinstance(error, _Repeated):
            raise SettingsError(f"{place}: {what}; keep one of the two") from None
        raise SettingsError(f"{place} is not YAML: {what}") from error
    if told is None:
        return {}
    if not isinstance(told, dict):
        raise SettingsError(f"`{file}` is not a mapping of settings")
    try:
        return flatten({str(name): value for name, value in told.items()})
    except ValueError as error:
        raise SettingsError(f"`{file}`: {error}") from error


def _from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """An empty variable is not given; the unknown ones are left for the model to name."""
    return {
        name[len(PREFIX) :].lower(): value for name, value in environment.items() if name.startswith(PREFIX) and value
    }


def _complaint(line: Mapping[str, Any]) -> str:
    name = ".".join(str(part) for part in line["loc"])
    if line["type"] == "extra_forbidden":
        near = get_close_matches(name, PATHS.values() if "." in name else Settings.model_fields, 1)
        return f"unknown setting `{name}`" + (f"; did you mean `{near[0]}`?" if near else "")
    said = line["msg"].removeprefix("Value error, ")  # pydantic's name for what a check of ours says
    return f"setting `{name}`: {said[:1].lower()}{said[1:]}"
