"""
Every field of a DestinationRule in istio.io/api, by message: done here, or why not.

The reader refuses by this table, and the documentation is made from it, so neither can forget a field.
"""

from collections.abc import Mapping

DONE = ""
"""What stands for a field that is done; any other text is the reason why it is not."""
_SAME = (
    "between proxies HTTP/2 is always spoken, and what an application gets is said by the `ingress` of its Sidecar; "
    "leave it out"
)
FIELDS: Mapping[str, Mapping[str, str]] = {
    "DestinationRule": dict.fromkeys(("host", "trafficPolicy", "subsets", "exportTo", "workloadSelector"), DONE),
    "WorkloadSelector": {"matchLabels": DONE},
    "Subset": dict.fromkeys(("name", "labels", "trafficPolicy"), DONE),
    "TrafficPolicy": {
        **dict.fromkeys(("loadBalancer", "connectionPool", "outlierDetection", "tls", "portLevelSettings"), DONE),
        "tunnel": "what leaves goes through the egress gateway, which applications reach by CONNECT; leave it out",
        "proxyProtocol": DONE,
        "retryBudget": DONE,
    },
    "PortTrafficPolicy": dict.fromkeys(("port", "loadBalancer", "connectionPool", "outlierDetection", "tls"), DONE),
    "PortSelector": {"number": DONE},
    "ProxyProtocol": {"version": DONE},
    "RetryBudget": dict.fromkeys(("percent", "minRetryConcurrency", "budgetInterval"), DONE),
    "LoadBalancerSettings": {
        **dict.fromkeys(("simple", "consistentHash", "localityLbSetting", "warmupDurationSecs", "warmup"), DONE),
        "backendUtilization": "it needs what backends say of their load, in responses; write `simple: LEAST_REQUEST`",
        "zoneAwareLbSetting": "Envoy needs to know the replicas of the proxy itself for it; write `localityLbSetting`",
    },
    "ConsistentHashLB": dict.fromkeys(
        (
            *("httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName"),
            *("ringHash", "maglev", "minimumRingSize"),
        ),
        DONE,
    ),
    "RingHash": {"minimumRingSize": DONE},
    "MagLev": {"tableSize": DONE},
    "HTTPCookie": dict.fromkeys(("name", "path", "ttl", "attributes"), DONE),
    "HTTPCookie.Attribute": dict.fromkeys(("name", "value"), DONE),
    "WarmupConfiguration": dict.fromkeys(("duration", "minimumPercent", "aggression"), DONE),
    "LocalityLoadBalancerSetting": dict.fromkeys(("distribute", "failover", "failoverPriority", "enabled"), DONE),
    "Distribute": dict.fromkeys(("from", "to"), DONE),
    "Failover": dict.fromkeys(("from", "to"), DONE),
    "ConnectionPoolSettings": dict.fromkeys(("tcp", "http"), DONE),
    "TCPSettings": dict.fromkeys(
        ("maxConnections", "connectTimeout", "tcpKeepalive", "maxConnectionDuration", "idleTimeout"), DONE
    ),
    "TcpKeepalive": dict.fromkeys(("probes", "time", "interval"), DONE),
    "HTTPSettings": {
        **dict.fromkeys(
            (
                *("http1MaxPendingRequests", "http2MaxRequests", "maxRequestsPerConnection", "maxRetries"),
                *("idleTimeout", "h2UpgradePolicy"),
            ),
            DONE,
        ),
        "useClientProtocol": _SAME,
        "maxConcurrentStreams": DONE,
        "http2KeepAlive": DONE,
    },
    "ConnectionKeepalive": dict.fromkeys(("interval", "timeout"), DONE),
    "OutlierDetection": {
        "consecutiveErrors": "Istio no longer heeds it; write `consecutive5xxErrors` or `consecutiveGatewayErrors`",
        **dict.fromkeys(
            (
                *("splitExternalLocalOriginErrors", "consecutiveLocalOriginFailures", "consecutiveGatewayErrors"),
                *("consecutive5xxErrors", "interval", "baseEjectionTime", "maxEjectionPercent", "minHealthPercent"),
            ),
            DONE,
        ),
        "failurePercentageThreshold": "errors are counted, not their share; write `consecutive5xxErrors`",
        "outlierDetectionHttpErrorCodes": "Istio has the field and does nothing with it yet; leave it out",
    },
    "ClientTLSSettings": {
        **dict.fromkeys(
            ("mode", "clientCertificate", "privateKey", "caCertificates", "credentialName", "subjectAltNames"), DONE
        ),
        "sni": DONE,
        "insecureSkipVerify": "whoever answered would be believed; name what vouches for the host by `caCertificates`",
        "caCrl": DONE,
        "caCertCredentialName": "secrets of a cluster are not read here; write `caCertificates`",
    },
}
"""The names of messages are those of istio.io/api; those that only select (``PortSelector``) stand here, too."""
