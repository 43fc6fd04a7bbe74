"""The reader of DestinationRule: how a proxy speaks to a host."""

from authz.documents.accessors import Part
from authz.mesh.kind_parts import read_metadata, read_spec
from authz.mesh.mesh_documents import Written
from authz.mesh.nouns import OriginatedTls, TlsMode


def read_destination_rule(part: Part, written: Written) -> None:
    """TLS that the egress gateway speaks to an external host."""
    read_metadata(part)
    spec = read_spec(part)
    spec.only("host", "trafficPolicy", "exportTo")
    policy = spec.part("trafficPolicy")
    tls = policy.part("tls") if policy else None
    if policy:
        policy.only("tls")
    if tls:
        tls.only("mode", "caCertificates", "sni", "subjectAltNames")
        originated = OriginatedTls(
            tls.choice("mode", TlsMode, TlsMode.SIMPLE),
            tls.text("caCertificates"),
            tls.text("sni"),
            tls.texts("subjectAltNames"),
        )
        if originated.mode not in (TlsMode.SIMPLE, TlsMode.DISABLE):
            tls.note("ME-6", f"`{originated.mode}` is not supported here", "mode", "write SIMPLE or DISABLE")
        written.rules.append((spec.text("host", required=True), originated, part))
