"""
Every field of VirtualService in Istio's API (``value_parts.ISTIO_API``), by message, and why some are not done here.

The table is complete, which a test holds against Istio's own definition; the documentation is generated from it.
"""

FIELDS: dict[str, dict[str, str]] = {
    "VirtualService": dict.fromkeys(("hosts", "gateways", "http", "tls", "tcp", "exportTo"), ""),
    "Destination": dict.fromkeys(("host", "subset", "port"), ""),
    "HTTPRoute": dict.fromkeys(
        (
            *("name", "match", "route", "redirect", "directResponse", "delegate", "rewrite", "timeout", "retries"),
            *("fault", "mirror", "mirrors", "mirrorPercent", "mirrorPercentage", "corsPolicy", "headers"),
        ),
        "",
    ),
    "Delegate": dict.fromkeys(("name", "namespace"), ""),
    "Headers": dict.fromkeys(("request", "response"), ""),
    "HeaderOperations": dict.fromkeys(("set", "add", "remove"), ""),
    "TLSRoute": dict.fromkeys(("match", "route"), ""),
    "TCPRoute": dict.fromkeys(("match", "route"), ""),
    "HTTPMatchRequest": dict.fromkeys(
        (
            *("name", "uri", "scheme", "method", "authority", "headers", "port", "sourceLabels", "gateways"),
            *("queryParams", "ignoreUriCase", "withoutHeaders", "sourceNamespace", "statPrefix"),
        ),
        "",
    ),
    "HTTPRouteDestination": dict.fromkeys(("destination", "weight", "headers"), ""),
    "RouteDestination": dict.fromkeys(("destination", "weight"), ""),
    "L4MatchAttributes": {
        "destinationSubnets": "traffic is not captured here: a connection has no address but that of the loopback port",
        "port": "",
        "sourceSubnet": "Istio does not do it either",
        "sourceLabels": "",
        "gateways": "",
        "sourceNamespace": "",
    },
    "TLSMatchAttributes": {
        "sniHosts": "",
        "destinationSubnets": "traffic is not captured here: a connection has no address but that of the loopback port",
        "port": "",
        "sourceLabels": "",
        "gateways": "",
        "sourceNamespace": "",
    },
    "HTTPRedirect": dict.fromkeys(
        ("uri", "authority", "port", "derivePort", "scheme", "redirectCode", "prefixRewrite"), ""
    ),
    "HTTPDirectResponse": dict.fromkeys(("status", "body"), ""),
    "HTTPBody": dict.fromkeys(("string", "bytes"), ""),
    "HTTPRewrite": dict.fromkeys(("uri", "authority", "uriRegexRewrite"), ""),
    "RegexRewrite": dict.fromkeys(("match", "rewrite"), ""),
    "StringMatch": dict.fromkeys(("exact", "prefix", "regex"), ""),
    "HTTPRetry": dict.fromkeys(
        ("attempts", "perTryTimeout", "retryOn", "retryRemoteLocalities", "retryIgnorePreviousHosts", "backoff"), ""
    ),
    "CorsPolicy": {
        "allowOrigin": "",
        "allowOrigins": "",
        "allowMethods": "",
        "allowHeaders": "",
        "exposeHeaders": "",
        "maxAge": "",
        "allowCredentials": "",
        "unmatchedPreflights": "",
    },
    "HTTPFaultInjection": dict.fromkeys(("delay", "abort"), ""),
    "Delay": {
        "percent": "",
        "fixedDelay": "",
        "exponentialDelay": "Istio does not do it either",
        "percentage": "",
    },
    "Abort": {
        "httpStatus": "",
        "grpcStatus": "",
        "http2Error": "Istio does not do it either",
        "percentage": "",
    },
    "HTTPMirrorPolicy": dict.fromkeys(("destination", "percentage"), ""),
    "PortSelector": dict.fromkeys(("number",), ""),
    "Percent": dict.fromkeys(("value",), ""),
}
"""Message, field, and the reason of ``ME-6`` where it is not done; an empty reason means that it is."""
