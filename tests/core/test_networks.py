import pytest

from authz.core import networks


@pytest.mark.parametrize(
    ("block", "address", "matches"),
    [
        ("192.0.2.10", "192.0.2.10", True),
        ("192.0.2.10", "192.0.2.11", False),
        ("10.1.2.3/8", "10.200.0.1", True),  # host bits are ignored
        ("0.0.0.0/0", "2001:db8::1", False),
        ("::/0", "10.0.0.1", False),
        ("2001:db8::/32", "2001:db8:1::9", True),
        ("10.0.0.0/8", "::ffff:10.0.0.1", False),  # section 10
        ("::ffff:0:0/96", "10.0.0.1", False),
        ("::ffff:0:0/96", "::ffff:10.0.0.1", True),
        ("10.0.0.0/8", "no address", False),
        ("fe80::/10", "fe80::1%eth0", False),
    ],
)
def test_networks(block: str, address: str, matches: bool) -> None:
    """AP-40."""
    assert networks.networks([block]).matches((address,)) is matches


@pytest.mark.parametrize("block", ["1.2.3", "01.2.3.4", "1.2.3.4/", "1.2.3.4/33", "::/129", "1.2.3.4/08", "fe80::1%a"])
def test_malformed_networks_are_refused(block: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        networks.parse_network(block)
