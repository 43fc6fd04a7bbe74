"""Filters as YAML for people; files are JSON, which is YAML and much faster to write."""

import yaml

from authz.core.attributes import Json


class _Plain(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]  # the fast one is not always built
    """Writes out what stands twice: nobody wants to read anchors."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def as_yaml(value: Json) -> str:
    """Write plain data as YAML that Envoy reads back the same."""
    return str(yaml.dump(value, Dumper=_Plain, sort_keys=False, allow_unicode=True))
