"""The reader of a DestinationRule's ``trafficPolicy``: of a host, of one of its ports, of a subset."""

from authz.documents.accessors import Part
from authz.mesh.quantities import INT32, UINT32, read_boolean, read_choice, read_decimal, read_duration, read_whole
from authz.mesh.read_load_balancer import read_load_balancer
from authz.mesh.traffic_fields import DONE, FIELDS
from authz.mesh.traffic_policy import (
    ClientTls,
    ClientTlsMode,
    ConnectionPool,
    OutlierPolicy,
    RetryBudget,
    TcpKeepalive,
    TrafficPolicy,
)
from authz.mesh.value_parts import only_fields

_UPGRADES = ("DEFAULT", "DO_NOT_UPGRADE", "UPGRADE")
_VERSIONS = ("V1", "V2")


def read_traffic_policy(part: Part | None) -> TrafficPolicy | None:
    """A traffic policy; None where nothing is written."""
    if part is None:
        return None
    only_fields(part, FIELDS["TrafficPolicy"])
    _at_least_one(part, "TrafficPolicy")
    ports: dict[int, TrafficPolicy] = {}
    for one in part.parts("portLevelSettings"):
        number, policy = _port_policy(one)
        if number in ports:
            one.note("ME-5", f"the port {number} is given twice", "port", "the first would count; leave one out")
        ports.setdefault(number, policy)
    found = _common(part)
    return TrafficPolicy(
        load_balancer=found.load_balancer,
        connection_pool=found.connection_pool,
        outlier=found.outlier,
        tls=found.tls,
        proxy_protocol=_proxy_protocol(part.part("proxyProtocol")),
        retry_budget=_retry_budget(part.part("retryBudget")),
        ports=ports,
    )


def _port_policy(part: Part) -> tuple[int, TrafficPolicy]:
    only_fields(part, FIELDS["PortTrafficPolicy"])
    _at_least_one(part, "PortTrafficPolicy", "port")
    port = part.part("port", required=True)
    if port:
        only_fields(port, FIELDS["PortSelector"])
    return port.port("number", required=True) if port else 0, _common(part)


def _at_least_one(part: Part, message: str, *but: str) -> None:
    if not any(part.has(field) for field in FIELDS[message] if field not in but):
        fields = ", ".join(field for field, reason in FIELDS[message].items() if reason is DONE and field not in but)
        part.note("ME-3", "the traffic policy says nothing", help_text=f"write one of {fields}")


def _common(part: Part) -> TrafficPolicy:
    return TrafficPolicy(
        load_balancer=read_load_balancer(part.part("loadBalancer")),
        connection_pool=_connection_pool(part.part("connectionPool")),
        outlier=_outlier(part.part("outlierDetection")),
        tls=_tls(part.part("tls")),
    )


def _connection_pool(part: Part | None) -> ConnectionPool | None:
    if part is None:
        return None
    only_fields(part, FIELDS["ConnectionPoolSettings"])
    tcp, http = part.part("tcp"), part.part("http")
    if not part.has("tcp") and not part.has("http"):
        part.note("ME-3", "the connection pool says nothing", help_text="write `tcp` or `http`")
    tcp, http = tcp or _empty(part), http or _empty(part)
    only_fields(tcp, FIELDS["TCPSettings"])
    only_fields(http, FIELDS["HTTPSettings"])
    upgrade = http.text("h2UpgradePolicy", "DEFAULT")
    if upgrade not in _UPGRADES:
        http.note("ME-1", f"`{upgrade}` is not one of {', '.join(_UPGRADES)}", "h2UpgradePolicy")
    return ConnectionPool(
        max_connections=read_whole(tcp, "maxConnections") or 0,
        connect_seconds=read_duration(tcp, "connectTimeout"),
        keepalive=_keepalive(tcp.part("tcpKeepalive")),
        max_connection_seconds=read_duration(tcp, "maxConnectionDuration"),
        tcp_idle_seconds=read_duration(tcp, "idleTimeout", zero=True),
        max_pending_requests=read_whole(http, "http1MaxPendingRequests") or 0,
        max_requests=read_whole(http, "http2MaxRequests") or 0,
        max_requests_per_connection=read_whole(http, "maxRequestsPerConnection") or 0,
        max_retries=read_whole(http, "maxRetries") or 0,
        http_idle_seconds=read_duration(http, "idleTimeout"),
        http2=upgrade == "UPGRADE",
        max_concurrent_streams=read_whole(http, "maxConcurrentStreams") or 0,
        ping_seconds=_pings(http.part("http2KeepAlive")),
    )


def _empty(part: Part) -> Part:
    return Part(type(part.node)({}, [], part.node.line, part.node.column), part.path, part.notes, part.codes)


def _keepalive(part: Part | None) -> TcpKeepalive | None:
    if part is None:
        return None
    only_fields(part, FIELDS["TcpKeepalive"])
    time, interval = read_duration(part, "time"), read_duration(part, "interval")
    return TcpKeepalive(
        probes=read_whole(part, "probes", most=UINT32) or 0,
        time_seconds=None if time is None else int(time),
        interval_seconds=None if interval is None else int(interval),
    )


def _pings(part: Part | None) -> tuple[float, float] | None:
    if part is None:
        return None
    only_fields(part, FIELDS["ConnectionKeepalive"])
    for field in ("interval", "timeout"):
        if not part.has(field):
            part.note("ME-3", f"`{field}` is missing", field, "write seconds, for instance 10s")
    interval, timeout = read_duration(part, "interval"), read_duration(part, "timeout")
    return None if interval is None or timeout is None else (interval, timeout)


def _outlier(part: Part | None) -> OutlierPolicy | None:
    if part is None:
        return None
    only_fields(part, FIELDS["OutlierDetection"])
    split = read_boolean(part, "splitExternalLocalOriginErrors") is True
    local = read_whole(part, "consecutiveLocalOriginFailures", most=UINT32)
    if local and not split:
        help_text = "write `splitExternalLocalOriginErrors: true`, too"
        part.note("ME-1", "nothing counts local failures by themselves", "consecutiveLocalOriginFailures", help_text)
    return OutlierPolicy(
        consecutive_5xx=read_whole(part, "consecutive5xxErrors", most=UINT32),
        consecutive_gateway_errors=read_whole(part, "consecutiveGatewayErrors", most=UINT32),
        split_local_origin=split,
        consecutive_local_origin=local,
        interval_seconds=read_duration(part, "interval"),
        base_ejection_seconds=read_duration(part, "baseEjectionTime"),
        max_ejection_percent=read_whole(part, "maxEjectionPercent", most=100) or 0,
        min_health_percent=read_whole(part, "minHealthPercent", most=100) or 0,
    )


def _tls(part: Part | None) -> ClientTls | None:
    if part is None:
        return None
    only_fields(part, FIELDS["ClientTLSSettings"])
    found = ClientTls(
        mode=read_choice(part, "mode", ClientTlsMode, ClientTlsMode.DISABLE),
        ca_certificates=part.text("caCertificates"),
        sni=part.text("sni"),
        subject_alt_names=part.texts("subjectAltNames"),
        client_certificate=part.text("clientCertificate"),
        private_key=part.text("privateKey"),
        credential=part.text("credentialName"),
        ca_crl=part.text("caCrl"),
    )
    if "" in found.subject_alt_names:
        part.note("ME-1", "an empty name fits no certificate", "subjectAltNames", "leave it out")
    if len(found.sni) > _MOST_SNI:
        part.note("ME-1", f"the name is longer than {_MOST_SNI} bytes", "sni", "write a host name")
    if found.mode not in (ClientTlsMode.SIMPLE, ClientTlsMode.MUTUAL):
        return found
    if found.credential:
        _check_credential(part, found)
    elif found.mode is ClientTlsMode.MUTUAL:
        for field, value in (("clientCertificate", found.client_certificate), ("privateKey", found.private_key)):
            if not value:
                part.note("ME-3", f"`{field}` is missing", field, "MUTUAL shows a certificate: name it and its key")
    elif found.ca_crl and not found.ca_certificates:
        part.note("ME-3", "`caCertificates` is missing", "caCrl", "the list belongs to an authority: name it")
    return found


_MOST_SNI = 255


def _check_credential(part: Part, tls: ClientTls) -> None:
    if not all(sign.isalnum() or sign in "-._" for sign in tls.credential) or tls.credential.startswith("."):
        help_text = "it names a directory below certs/: write a-z, 0-9, `-` and `.`"
        part.note("ME-1", f"`{tls.credential}` is not a name", "credentialName", help_text)
    for field in ("clientCertificate", "privateKey", "caCertificates", "caCrl"):
        if part.text(field):
            message = f"`credentialName` and `{field}` exclude each other"
            part.note("ME-1", message, field, "write the name of the directory or the paths of the files")


def _proxy_protocol(part: Part | None) -> str:
    if part is None:
        return ""
    only_fields(part, FIELDS["ProxyProtocol"])
    version = part.text("version", "V1")
    if version not in _VERSIONS:
        part.note("ME-1", f"`{version}` is not one of {', '.join(_VERSIONS)}", "version")
        return "V1"
    return version


def _retry_budget(part: Part | None) -> RetryBudget | None:
    if part is None:
        return None
    only_fields(part, FIELDS["RetryBudget"])
    percent = read_decimal(part, "percent", most=100)
    return RetryBudget(
        percent=20.0 if percent is None else percent,
        min_concurrency=read_whole(part, "minRetryConcurrency", most=INT32) or 3,
        interval_seconds=read_duration(part, "budgetInterval"),
    )
