"""YAML that stands as a text inside other YAML: where it begins, so that its problems have their places."""

from authz.documents.reading import Scalar


def embedded_origin(text: Scalar, data: bytes) -> tuple[int, int]:
    """
    Find line and column at which an embedded text begins: below its ``|``, indented.

    Of a quoted text only the line is known.

    ``data`` is the whole file, which is UTF-8.
    """
    if text.style not in ("|", ">"):
        return text.line, 1
    lines = data.decode("utf-8").splitlines()
    written = next((line for line in lines[text.line :] if line.strip()), "")
    text_line = next((line for line in text.value.splitlines() if line.strip()), "")
    indented = len(written) - len(written.lstrip()) - (len(text_line) - len(text_line.lstrip()))
    return text.line + 1, indented + 1
