"""How an unexpected failure is reported: by its place, never by a message that may quote a token or a key."""

from traceback import extract_tb


def where_it_failed(error: BaseException) -> str:
    """Types and places of an exception and its causes, without their messages: those may quote a token."""
    parts = []
    seen: BaseException | None = error
    while seen is not None:
        frames = " < ".join(
            f"{frame.name} {frame.filename}:{frame.lineno}" for frame in reversed(extract_tb(seen.__traceback__))
        )
        parts.append(f"{type(seen).__name__} at {frames or 'unknown'}")
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return ", caused by ".join(parts)
