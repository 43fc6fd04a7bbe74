"""The peer's certificate in the check: bytes to bytes, and files that change while requests come."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from authz.core.compiler import compile_engine
from authz.core.decision import Stage
from authz.core.errors import LoadError, SettingsError
from authz.core.resources import Action, AuthorizationPolicy, MeshConfig, Metadata, Resources, Rule, Target
from authz.core.spiffe import SpiffeId, TrustDomain
from authz.identity.ca import BUNDLE_FILE, INTERMEDIATES_FILE, CertificateAuthority, Issued
from authz.identity.rotation import activate, prepare, retire, taint
from authz.service.check_function import CheckFunction
from authz.service.evidence import PeerEvidence
from authz.service.ids import DecisionIds
from authz.service.loading.snapshot import Snapshot
from authz.settings.precedence import read_settings
from authz.settings.sections import PeerSettings
from tests.identity.certificates import DAY, INTERMEDIATE, KEYS, LEAF, NOW, REVIEWS, ROOT, changed, pem
from tests.identity.spire import spire_authority
from tests.service.messages import LABELS, check_request, peer, response, told
from tests.service.recording import Recorder

OTHER_ROOT = changed(ROOT, name="other root", issuer="other root", key=KEYS["other"], signer=KEYS["other"])
OTHER = "spiffe://other.test/ns/a/sa/b"
OWN = pem(LEAF.certificate()).decode()
RATINGS = "spiffe://mesh.test/ns/shop/sa/ratings"


def write_files(folder: Path, revoked: str = "") -> dict[str, object]:
    """Settings whose bundles are real: ours in two files, the federated one in another."""
    (folder / "roots.pem").write_bytes(pem(ROOT.certificate()))
    (folder / "intermediates.pem").write_bytes(pem(INTERMEDIATE.certificate()))
    (folder / "other.pem").write_bytes(pem(OTHER_ROOT.certificate()))
    (folder / "revoked.txt").write_text(revoked)
    bundles = {"mesh.test": f"{folder}/roots.pem, {folder}/intermediates.pem", "other.test": f"{folder}/other.pem"}
    return {"peer_trust_bundles": json.dumps(bundles), "peer_revocations": str(folder / "revoked.txt")}


def evidence_of(folder: Path, mode: str = "required", revoked: str = "") -> PeerEvidence:
    return start(write_files(folder, revoked), mode)


def start(told: dict[str, object], mode: str = "required") -> PeerEvidence:
    settings = read_settings({"peer_certificate": mode, **told}, environment={})
    evidence = PeerEvidence.of(PeerSettings.of(settings), lambda: NOW)
    assert evidence is not None
    evidence.load()
    return evidence


def function(evidence: PeerEvidence | None, audit: Recorder | None = None) -> CheckFunction:
    """Everything is allowed: only evidence refuses."""
    policy = AuthorizationPolicy(Metadata("all", "shop"), Target(), Action.ALLOW, (Rule(),))
    engine = compile_engine(Resources((policy,), version="v1"), MeshConfig())
    judge = evidence.judge if evidence is not None else None
    made = CheckFunction(audit or Recorder(), DecisionIds(NOW, b"abc"), judge_peer=judge)
    made.replace(Snapshot(engine, MeshConfig(), "v1", NOW))
    return made


def ask(check: CheckFunction, principal: str, certificate: str, now: float = NOW, labels: object = None) -> str:
    """``allowed``, or the reason of the denial."""
    destination = peer("", "10.1.0.5", 8080, {**LABELS, **(labels if isinstance(labels, dict) else {})})
    source = peer(principal, certificate=quote(certificate, safe=""))
    answer = response(check.check(check_request(source=source, destination=destination), (), now))
    if answer.status.code == 0:
        return "allowed"
    assert (answer.denied_response.status.code, told(answer)["stage"]) == (403, Stage.IDENTITY)
    return str(told(answer)["reason"])


def leaf(**changes: object) -> str:
    return pem(changed(LEAF, **changes).certificate()).decode()


NOT_RATINGS = f"the peer's certificate is `{REVIEWS}`'s, not `{RATINGS}`'s"
OTHER_LEAF = leaf(uris=(OTHER,), issuer="other root", signer=KEYS["other"])
CALLERS = [
    ("the rightful holder", REVIEWS, OWN, NOW, "allowed"),
    ("a federated peer by its own bundle", OTHER, OTHER_LEAF, NOW, "allowed"),
    ("plaintext: a question of PeerAuthentication", "", "", NOW, "allowed"),
    (
        "another workload's certificate",
        RATINGS,
        OWN,
        NOW,
        f"the peer's certificate is `{REVIEWS}`'s, not `{RATINGS}`'s",
    ),
    ("expired", REVIEWS, OWN, NOW + 2 * DAY, "the certificate expired 1d ago"),
    ("an identity without a certificate", REVIEWS, "", NOW, "the peer's certificate was not sent"),
    ("a certificate without an identity", "", OWN, NOW, "there is a peer certificate but no peer identity"),
    (
        "of a trust domain nobody knows",
        "spiffe://evil.test/ns/a/sa/b",
        leaf(uris=("spiffe://evil.test/ns/a/sa/b",)),
        NOW,
        "the trust domain `evil.test` is not trusted",
    ),
    ("self-made", REVIEWS, leaf(issuer="leaf", signer=KEYS["leaf"]), NOW, "the certificate is self-signed"),
    (
        "ours from a federated authority",
        REVIEWS,
        leaf(issuer="other root", signer=KEYS["other"]),
        NOW,
        "the certificate was issued by `CN=other root`, which is unknown to `mesh.test`",
    ),
    ("garbage", REVIEWS, "garbage", NOW, "not a PEM certificate"),
]


@pytest.mark.parametrize(
    ("principal", "certificate", "now", "expected"), [row[1:] for row in CALLERS], ids=[row[0] for row in CALLERS]
)
def test_who_is_believed(tmp_path: Path, principal: str, certificate: str, now: float, expected: str) -> None:
    check = function(evidence_of(tmp_path))
    for _ in range(2):  # what was remembered is judged the same
        assert ask(check, principal, certificate, now).startswith(expected)


def test_an_accepted_certificate_is_not_believed_of_somebody_else_or_later(tmp_path: Path) -> None:
    check = function(evidence_of(tmp_path))
    assert ask(check, REVIEWS, OWN) == "allowed"
    assert ask(check, RATINGS, OWN).startswith("the peer's certificate is")
    assert ask(check, REVIEWS, OWN, NOW + 2 * DAY) == "the certificate expired 1d ago"
    assert ask(check, REVIEWS, OWN, NOW - 2 * DAY).startswith("the certificate is not yet valid")
    assert ask(check, REVIEWS, OWN) == "allowed"


def test_optional_evidence_is_judged_where_there_is_some(tmp_path: Path) -> None:
    check = function(evidence_of(tmp_path, "optional"))
    assert ask(check, REVIEWS, "") == "allowed"
    assert ask(check, RATINGS, OWN).startswith("the peer's certificate is")


def test_without_the_setting_nothing_is_judged() -> None:
    assert PeerEvidence.of(PeerSettings.of(read_settings({}, environment={})), lambda: NOW) is None
    assert ask(function(None), RATINGS, OWN) == "allowed"


@pytest.mark.parametrize(
    ("principal", "certificate", "expected"),
    [
        ("client.example.com", "a client of the gateway's own authority", "allowed"),
        ("", "a client of the gateway's own authority", "allowed"),
        (REVIEWS, OWN, "allowed"),
        (RATINGS, OWN, "the peer's certificate is"),
    ],
)
def test_a_gateway_s_own_clients_are_not_of_the_mesh(
    tmp_path: Path, principal: str, certificate: str, expected: str
) -> None:
    check = function(evidence_of(tmp_path))
    answer = ask(check, principal, certificate, labels={"authz/proxy": "gateway"})
    assert answer.startswith(expected)


def test_a_denial_is_recorded_with_its_reason(tmp_path: Path) -> None:
    audit = Recorder()
    ask(function(evidence_of(tmp_path), audit), REVIEWS, "")
    (entry,) = audit.entries
    assert entry.decision.stage is Stage.IDENTITY
    assert "certificate was not sent" in entry.decision.reason


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not happened():  # noqa: ASYNC110  # what changes is a file, which sets no event of ours
            await asyncio.sleep(0.02)


async def test_changed_files_are_in_force_at_once_and_broken_ones_are_not(tmp_path: Path) -> None:
    evidence = evidence_of(tmp_path)
    check = function(evidence)
    assert ask(check, REVIEWS, OWN) == "allowed"
    watching = asyncio.Event()
    following = asyncio.create_task(evidence.run(watching))
    await watching.wait()

    async def becomes(expected: str) -> None:
        await until(lambda: ask(check, REVIEWS, OWN).startswith(expected))

    (tmp_path / "revoked.txt").write_text(f"{REVIEWS}\n")
    await becomes(f"the identity `{REVIEWS}` is revoked")
    (tmp_path / "revoked.txt").write_text(f"{REVIEWS}\nserial:xyz\n")
    await until(lambda: "not a serial number" in evidence.status.problem)
    await becomes(f"the identity `{REVIEWS}` is revoked")
    (tmp_path / "revoked.txt").write_text(f"serial:{LEAF.serial:x}\n")
    await becomes("the certificate with serial number 1234 is revoked")
    (tmp_path / "revoked.txt").write_text("")
    await becomes("allowed")
    assert evidence.status.problem == ""
    assert (evidence.status.failures, evidence.status.loaded_at) == (1, NOW)
    (tmp_path / "roots.pem").write_bytes(pem(OTHER_ROOT.certificate()))
    await becomes("the intermediate `CN=intermediate` was issued by `CN=root`, which is unknown")
    following.cancel()


def test_only_the_first_of_many_problems_are_told(tmp_path: Path) -> None:
    evidence = evidence_of(tmp_path)
    (tmp_path / "revoked.txt").write_text("serial:x\n" * 1000)
    evidence._load_again()
    assert evidence.status.problem.count("is not a serial number") == 3
    assert evidence.status.problem.endswith("; and 997 more")


UNUSABLE = [
    ({"peer_trust_bundles": "{}"}, "nobody would be trusted"),
    ({"peer_trust_bundles": '{"Mesh Test": "roots.pem"}'}, "`Mesh Test` is not a trust domain"),
    ({"peer_trust_bundles": '{"mesh.test": "/nowhere/roots.pem"}'}, "`/nowhere/roots.pem` cannot be read"),
    ({"peer_trust_bundles": '{"mesh.test": "FOLDER/intermediates.pem"}'}, "holds no root"),
    ({"peer_revocations": "/nowhere/revoked.txt"}, "`/nowhere/revoked.txt` cannot be read"),
]


@pytest.mark.parametrize(("change", "message"), UNUSABLE)
def test_what_cannot_be_used_stops_the_start(tmp_path: Path, change: dict[str, str], message: str) -> None:
    told = {name: value.replace("FOLDER", str(tmp_path)) for name, value in change.items()}
    with pytest.raises(SettingsError) as raised:
        start({**write_files(tmp_path), **told})
    assert message in str(raised.value)


def test_a_broken_revocation_list_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(LoadError):
        evidence_of(tmp_path, revoked="not-an-entry\n")


def test_a_retired_root_is_trusted_no_more(tmp_path: Path) -> None:
    """With the files that ``authz ca`` keeps."""
    domain, reviews = TrustDomain("mesh.test"), SpiffeId.parse(REVIEWS)
    before = CertificateAuthority.create(domain, NOW)
    folder = tmp_path / "ca"
    before.save(folder)
    told: dict[str, object] = {
        "peer_trust_bundles": json.dumps({"mesh.test": f"{folder / BUNDLE_FILE},{folder / INTERMEDIATES_FILE}"})
    }
    evidence = start(told)
    check = function(evidence)

    def lone_leaf(issued: Issued) -> str:
        end = "-----END CERTIFICATE-----\n"
        return issued.chain_pem.decode().partition(end)[0] + end

    old = lone_leaf(before.issue_svid(reviews, NOW))
    assert ask(check, REVIEWS, old) == "allowed"
    rotated = retire(taint(activate(prepare(before, NOW))))
    rotated.save(folder)
    evidence.load()
    assert "but not its signature" in ask(check, REVIEWS, old)
    assert ask(check, REVIEWS, lone_leaf(rotated.issue_svid(reviews, NOW))) == "allowed"


# Bundles of other trust domains, as their endpoints give them


def test_an_svid_of_a_foreign_spire_is_believed_by_its_bundle_document(tmp_path: Path) -> None:
    """Fetched by `authz ca serve --federation` or `authz ca federation refresh`; the leaf is all that Envoy shows."""
    spire = spire_authority(TrustDomain("spire.test"), NOW)
    (tmp_path / "spire.test.json").write_bytes(spire.document)
    evidence = start({"peer_trust_bundles": json.dumps({"spire.test": f"{tmp_path}/spire.test.json"})})
    check = function(evidence)
    caller = "spiffe://spire.test/ns/shop/sa/front"
    assert ask(check, caller, spire.svid("/ns/shop/sa/front").decode()) == "allowed"
    forged = spire_authority(TrustDomain("spire.test"), NOW).svid("/ns/shop/sa/front").decode()
    assert "carries the name" in ask(check, caller, forged)
    # Its owner says that nothing is to be trusted any more.
    (tmp_path / "spire.test.json").write_text('{"keys": []}')
    evidence.load()
    assert "which is unknown to `spire.test`" in ask(check, caller, spire.svid("/ns/shop/sa/front").decode())


def test_a_broken_bundle_document_is_refused_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "spire.test.json").write_text('{"keys": 3}')
    with pytest.raises(SettingsError, match=r"`peer_trust_bundles`: the bundle of `spire\.test` has no `keys` list"):
        start({"peer_trust_bundles": json.dumps({"spire.test": f"{tmp_path}/spire.test.json"})})
