"""Values of claims: the ways to write an audience, and lists as JSON."""

from authz.core.attributes import Json


def written_audience(text: str, way: int) -> str:
    """One of the six ways to write an audience that are one (RA-31)."""
    plain = plain_audience(text)
    return ("", "http://", "https://")[way % 3] + plain + ("/" if way > 2 else "")


def plain_audience(audience: str) -> str:
    """An audience without scheme and trailing slash (RA-31)."""
    for scheme in ("http://", "https://"):
        if audience.startswith(scheme):
            audience = audience[len(scheme) :]
            break
    return audience.removesuffix("/")


def as_claim(name: str, values: list[str]) -> Json:
    """Values of a claim as JSON that no rule splits (RA-33): a list unless it is one text without blanks."""
    return values[0] if len(values) == 1 and " " not in values[0] else list[Json](values)
