"""The clients that a control plane is measured with are as Envoys with our bootstraps."""

from authz.envoy.control_plane_source import PING_SECONDS
from benchmarks.xds_clients import PING_EVERY


def test_clients_ask_as_often_as_envoys_whether_the_control_plane_is_there() -> None:
    assert PING_SECONDS[0] == PING_EVERY
