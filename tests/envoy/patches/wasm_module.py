"""A WebAssembly module, byte by byte, that answers every request itself with one status (proxy-wasm 0.2.1)."""

_I32, _FUNCTION = 0x7F, 0x60


def _number(value: int) -> bytes:
    """Unsigned LEB128."""
    made = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        made.append(low | (0x80 if value else 0))
        if not value:
            return bytes(made)


def _signed(value: int) -> bytes:
    """Signed LEB128."""
    made = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        done = (value == 0 and not low & 0x40) or (value == -1 and low & 0x40)
        made.append(low | (0 if done else 0x80))
        if done:
            return bytes(made)


def _many(items: list[bytes]) -> bytes:
    return _number(len(items)) + b"".join(items)


def _section(number: int, items: list[bytes]) -> bytes:
    content = _many(items)
    return bytes([number]) + _number(len(content)) + content


def _text(text: str) -> bytes:
    return _number(len(text)) + text.encode()


def _type(parameters: int, results: int) -> bytes:
    return bytes([_FUNCTION]) + _many([bytes([_I32])] * parameters) + _many([bytes([_I32])] * results)


def _body(code: bytes) -> bytes:
    content = _many([]) + code + b"\x0b"
    return _number(len(content)) + content


def _constant(value: int) -> bytes:
    return b"\x41" + _signed(value)


def answering_module(status: int) -> bytes:
    """A module whose filter answers with ``status`` and an empty body."""
    types = [_type(0, 0), _type(1, 1), _type(2, 0), _type(3, 1), _type(8, 1)]
    imports = [_text("env") + _text("proxy_send_local_response") + b"\x00" + _number(4)]
    functions = ["proxy_abi_version_0_2_1", "malloc", "proxy_on_context_create", "proxy_on_request_headers"]
    answer = b"".join(map(_constant, (status, 0, 0, 0, 0, 0, 0, -1))) + b"\x10\x00\x1a" + _constant(1)  # 1: stop here
    bodies = [_body(b""), _body(_constant(1024)), _body(b""), _body(answer)]
    exports = [_text(name) + b"\x00" + _number(1 + i) for i, name in enumerate(functions)]
    exports.append(_text("memory") + b"\x02\x00")
    return b"\x00asm\x01\x00\x00\x00" + b"".join(
        (
            _section(1, types),
            _section(2, imports),
            _section(3, [_number(i) for i in range(4)]),
            _section(5, [b"\x00\x01"]),
            _section(7, exports),
            _section(10, bodies),
        )
    )
