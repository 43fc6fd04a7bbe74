"""A real Caddy with the configuration of the documentation."""

import shutil
from pathlib import Path

import pytest

from tests.service.doors.behind import DOOR, POLICIES, application, forges_nothing, judged_alike, proxy, raw
from tests.service.doors.opened import opened
from tests.service.doors.pages import configuration, free_port

CADDY = shutil.which("caddy")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CADDY is None, reason="there is no caddy")]


async def test_caddy_asks_the_door_and_obeys(tmp_path: Path) -> None:
    port = free_port()
    async with opened(POLICIES, tmp_path, "forward-auth", **DOOR) as door, application() as behind:
        text = configuration("caddyfile", "Caddy").replace("//run/authz/caddy.sock", f"/{tmp_path}/door.sock")
        text = text.replace("127.0.0.1:8080", f"127.0.0.1:{behind}")
        file = tmp_path / "Caddyfile"
        file.write_text(f"{{\nadmin off\nauto_https off\n}}\nhttp://127.0.0.1:{port} {{\n{text}}}\n")
        command = [str(CADDY), "run", "--config", str(file), "--adapter", "caddyfile"]
        home = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
        async with proxy(command, port, **home) as client:
            await judged_alike(client, port, door)
            await forges_nothing(port)
            for path in ("/open/../shut", "/shut/../open", "/%6fpen", "/open/./a"):
                assert await raw(port, f"GET {path}") in (400, 403)
