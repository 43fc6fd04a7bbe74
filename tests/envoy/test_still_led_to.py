"""A running proxy is never led to a cluster that its files no longer have, or do not have yet."""

from pathlib import Path

from authz.envoy.still_led_to import write_below_proxies

HEAD = "# rendered\nresources:\n"


def clusters(*names: str) -> bytes:
    items = (f"- '@type': cluster\n  name: {name}\n  parts:\n  - name: inner\n" for name in names)
    return (HEAD + "".join(items)).encode()


def files(names: tuple[str, ...], leads_to: str) -> dict[str, bytes]:
    found = {f"eds/{name}.yaml": b"endpoints" for name in names}
    return {"rds/a.yaml": leads_to.encode(), "cds/a.yaml": clusters(*names), **found}


def seen(out: Path) -> tuple[bytes, bytes]:
    """Clusters and routes as a proxy may find them."""
    return (out / "cds/a.yaml").read_bytes(), (out / "rds/a.yaml").read_bytes()


def written(out: Path, names: tuple[str, ...], leads_to: str) -> tuple[tuple[str, ...], list[tuple[bytes, bytes]]]:
    """The names written, and what a proxy could see at every pause."""
    pauses: list[tuple[bytes, bytes]] = []
    return write_below_proxies(out, files(names, leads_to), 1.0, lambda _: pauses.append(seen(out))), pauses


def test_a_new_cluster_comes_before_the_route_and_an_old_one_goes_after_it(tmp_path: Path) -> None:
    (tmp_path / "rds").mkdir()
    (tmp_path / "rds/a.yaml").write_bytes(b"nothing yet")
    written(tmp_path, ("all", "old"), "old")
    names, pauses = written(tmp_path, ("all", "new"), "new")
    assert pauses == [(clusters("all", "new", "old"), b"old"), (clusters("all", "new", "old"), b"new")]
    assert seen(tmp_path) == (clusters("all", "new"), b"new")
    assert names == ("eds/new.yaml", "cds/a.yaml", "rds/a.yaml")


def test_nobody_waits_where_only_routes_change(tmp_path: Path) -> None:
    (tmp_path / "rds").mkdir()
    (tmp_path / "rds/a.yaml").write_bytes(b"nothing yet")
    written(tmp_path, ("all",), "one")
    names, pauses = written(tmp_path, ("all",), "two")
    assert (names, pauses) == (("rds/a.yaml",), [])
