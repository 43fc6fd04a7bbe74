"""A real nginx with the configuration of the documentation."""

import os
import shutil
from pathlib import Path

import pytest

from tests.service.doors.behind import DOOR, POLICIES, application, forges_nothing, judged_alike, proxy, raw
from tests.service.doors.opened import opened
from tests.service.doors.pages import configuration, free_port

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(NGINX is None, reason="there is no nginx")]
FRAME = """
daemon off; pid {folder}/nginx.pid; error_log stderr; worker_processes 1; {user}
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    server {{ listen 127.0.0.1:{port};
{locations}
    }}
}}
"""


def written(folder: Path, port: int, application_port: int, forget: str = "") -> list[str]:
    """The command that runs it; ``forget`` leaves the line with a text out."""
    text = configuration("nginx", "nginx")
    assert forget in text
    lines = [line for line in text.splitlines() if not forget or forget not in line]
    locations = "\n".join(lines).replace("/run/authz/nginx.sock", f"{folder}/door.sock")
    locations = locations.replace("127.0.0.1:8080", f"127.0.0.1:{application_port}")
    user = "user root;" if os.getuid() == 0 else ""
    (folder / "nginx.conf").write_text(FRAME.format(folder=folder, port=port, locations=locations, user=user))
    return [str(NGINX), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]


async def test_nginx_asks_the_door_and_obeys(tmp_path: Path) -> None:
    port = free_port()
    async with (
        opened(POLICIES, tmp_path, "nginx", **DOOR) as door,
        application() as behind,
        proxy(written(tmp_path, port, behind), port) as client,
    ):
        await judged_alike(client, port, door)
        await forges_nothing(port)
        # nginx would forward these as they are, and find its locations by what they mean
        for path in ("/open/../shut", "/shut/../open", "/%6fpen", "/open/./a"):
            assert await raw(port, f"GET {path}") == 403
        assert await raw(port, "GET /authz") in (403, 404)  # its own way to the door is none for clients


async def test_a_dead_door_lets_nothing_pass(tmp_path: Path) -> None:
    port = free_port()
    async with application() as behind, proxy(written(tmp_path, port, behind), port) as client:
        assert (await client.get("/open")).status_code == 500


@pytest.mark.parametrize("forget", ["X-Original-Method", "X-Original-URI", "X-Original-Host", "X-Real-IP"])
async def test_a_configuration_that_forgets_a_header_answers_nobody(forget: str, tmp_path: Path) -> None:
    port = free_port()
    async with (
        opened(POLICIES, tmp_path, "nginx", **DOOR) as door,
        application() as behind,
        proxy(written(tmp_path, port, behind, forget), port) as client,
    ):
        assert (await client.get("/open")).status_code == 403
        assert door.records.entries == []
