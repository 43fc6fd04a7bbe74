"""
Every field of Gateway, Sidecar, ServiceEntry, WorkloadEntry and WorkloadGroup in istio.io/api, by message.

An empty text: it is done. Any other is the reason of ``ME-6``. The readers refuse by this table, a test holds it
against Istio's own definition, and the documentation is made from it, so that none can forget a field.
"""

_CHECKED = "whoever came would be believed; leave it out, and name an authority by `caCertificates`"


def _done(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "")


_ENTRY = _done("address", "ports", "labels", "network", "locality", "weight", "serviceAccount")

FIELDS: dict[str, dict[str, str]] = {
    "Gateway": _done("servers", "selector"),
    "Server": {
        **_done("port", "bind", "hosts", "tls", "name"),
        "defaultEndpoint": "a gateway leads to services, by VirtualServices; leave it out",
    },
    "Port": {**_done("number", "protocol", "name"), "targetPort": "Istio refuses it at gateways, too; leave it out"},
    "ServerTLSSettings": {
        **_done("httpsRedirect", "mode", "serverCertificate", "privateKey", "caCertificates", "caCrl"),
        **_done("credentialName", "credentialNames", "caCertCredentialName", "tlsCertificates", "subjectAltNames"),
        **_done("verifyCertificateSpki", "verifyCertificateHash"),
        **_done("minProtocolVersion", "maxProtocolVersion", "cipherSuites"),
        "insecureSkipVerify": _CHECKED,
        "ecdhCurves": "Envoy's own choice of curves is used; leave it out",
        "alpnProtocols": "HTTP/2 and HTTP/1.1 are offered, which is what the port speaks; leave it out",
    },
    "TLSCertificate": {
        **_done("serverCertificate", "privateKey"),
        "caCertificates": "one authority vouches for clients: write `caCertificates` beside `tlsCertificates`",
    },
    "Sidecar": {
        **_done("workloadSelector", "ingress", "egress", "outboundTrafficPolicy"),
        "inboundConnectionPool": "how many requests an application takes is not bounded here; leave it out",
    },
    "IstioIngressListener": {
        **_done("port", "bind", "captureMode", "defaultEndpoint"),
        "tls": "between proxies TLS follows from PeerAuthentication; from outside, use a Gateway",
        "connectionPool": "how many requests an application takes is not bounded here; leave it out",
    },
    "IstioEgressListener": _done("port", "bind", "captureMode", "hosts"),
    "SidecarPort": {**_done("number", "protocol", "name"), "targetPort": "Istio refuses it at sidecars, too"},
    "WorkloadSelector": _done("labels"),
    "OutboundTrafficPolicy": {
        **_done("mode"),
        "egressProxy": "what leaves goes through the egress gateway, where policies decide; leave it out",
    },
    "ServiceEntry": _done(
        *("hosts", "addresses", "ports", "location", "resolution", "endpoints", "workloadSelector", "exportTo"),
        "subjectAltNames",
    ),
    "ServicePort": _done("number", "protocol", "name", "targetPort"),
    "WorkloadEntry": _ENTRY,
    "WorkloadGroup": _done("metadata", "template", "probe"),
    "WorkloadGroup.ObjectMeta": _done("labels", "annotations"),
    "ReadinessProbe": {
        **_done("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"),
        **_done("httpGet", "tcpSocket", "grpc"),
        "exec": "the proxy checks its application itself, and starts no programs; write `httpGet` or `tcpSocket`",
    },
    "HTTPHealthCheckConfig": {**_done("path", "port", "host", "scheme", "httpHeaders")},
    "GrpcHealthCheckConfig": _done("port", "service"),
    "HTTPHeader": _done("name", "value"),
    "TCPHealthCheckConfig": _done("host", "port"),
    "ExecHealthCheckConfig": {"command": "see `exec`"},
}
"""Message and field; the names of messages are those of istio.io/api."""
