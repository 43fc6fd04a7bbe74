"""What the commands that people wait for load: they start in a quarter of a second because of what they leave out."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = (
    "asyncio",
    "cryptography",
    "envoy_data_plane",
    "grpc",
    "httpx",
    "jwt",
    "opentelemetry",
    "pydantic",
    "rich",
    "ssl",
)
POLICIES = ("--policies", "policies")
TOKEN = "eyJhbGciOiAiRVMyNTYifQ.eyJpc3MiOiAiaHR0cDovLzEyNy4wLjAuMToxOTE5MSJ9.c2ln"
LOADED = """
import sys
sys.argv[0] = "authz"
try:
    from authz.cli import main
    main()
except SystemExit as end:
    print(end.code, *sys.modules, file=sys.stderr)
"""

HELP, VALIDATE, CHECK = ("--help",), ("validate", "policies"), ("check", *POLICIES, "-n", "bookinfo", "--path", "/")
BOUNDS = {HELP: 130, VALIDATE: 220, CHECK: 250}
"""The most modules, those of Python included; ten more cost some three hundredths of the start."""


def loaded(arguments: tuple[str, ...]) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    code, *modules = done.stderr.splitlines()[-1].split()
    assert code in ("0", "1", "3", "None"), done.stderr
    return modules


@pytest.mark.parametrize("arguments", BOUNDS, ids=lambda arguments: arguments[0])
def test_a_start_loads_few_modules(arguments: tuple[str, ...]) -> None:
    modules = loaded(arguments)
    assert len(modules) <= BOUNDS[arguments], sorted(modules)


@pytest.mark.parametrize("arguments", BOUNDS, ids=lambda arguments: arguments[0])
def test_a_start_loads_no_library_that_it_does_not_need(arguments: tuple[str, ...]) -> None:
    assert {name.partition(".")[0] for name in loaded(arguments)} & set(HEAVY) == set()


def test_a_token_is_judged_by_the_library_of_keys() -> None:
    """The counterpart: what is left out above is loaded where it decides."""
    caller = ("--source-principal", "cluster.local/ns/bookinfo/sa/web")
    where = ("-n", "istio-system", "-l", "istio=ingressgateway", "--path", "/", "--gateway")
    asked = ("check", *POLICIES, *where, *caller, "--token", TOKEN)
    assert {"cryptography", "authz.tokens.authenticate"} <= set(loaded(asked))
