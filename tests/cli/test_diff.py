"""``authz diff``: what it prints, git revisions, exit codes, and that its commands decide as it says."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.cli.conftest import POLICIES, Run

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "packaging" / "ci" / "policy-diff.sh"
NEEDS_GIT = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

EXPECTED = """\
shop (no label that a selector names): newly allowed
  request: GET api.example.com/admin to port 8080, from no identity (plaintext)
  old:     denied (403): DENY rule shop/no-admin/0 at policies/shop.yaml:19
  new:     allowed: no ALLOW policy applies to the workload
    authz check \\
      --policies new \\
      --namespace shop \\
      --port 8080 \\
      --destination-ip 10.1.0.5 \\
      --source-ip 10.9.9.9 \\
      --method GET \\
      --host api.example.com \\
      --path /admin
shop (app=cart): other rule only: shop/no-admin/0 → no rule, for example GET api.example.com/admin to port 8080, \
from cluster.local/ns/shop/sa/other
shop (app=cart): newly allowed
  request: GET api.example.com/basket to port 9080, from cluster.local/ns/shop/sa/web
  old:     denied (403): no ALLOW rule matched
  new:     allowed: ALLOW rule shop/reads/0 at new/shop.yaml:7
  missing: to[0].operation.paths (paths): expected one of `/cart*`, got `/basket`
    authz check \\
      --policies new \\
      --namespace shop \\
      --labels app=cart \\
      --port 9080 \\
      --destination-ip 10.1.0.5 \\
      --source-principal cluster.local/ns/shop/sa/web \\
      --source-ip 10.9.9.9 \\
      --method GET \\
      --host api.example.com \\
      --path /basket
2 newly allowed (0 workloads proved equal, 0 unchanged)
"""


@pytest.fixture
def changed(policies: Path, tmp_path: Path) -> Path:
    """The policies with a path and a method more."""
    folder = tmp_path / "new"
    folder.mkdir()
    text = POLICIES.replace('["/cart*"]', '["/cart*", "/basket"]').replace('["/admin*"]', '["/admin/*"]')
    (folder / "shop.yaml").write_text(text)
    return folder


def compared(run: Run, *arguments: str) -> tuple[Result, dict[str, Any]]:
    result = run("diff", *arguments, "-o", "json")
    return result, json.loads(result.stdout)


def test_what_opens_is_shown_with_the_rules_and_the_command(run: Run, changed: Path) -> None:
    result = run("diff", "policies", "new")
    assert result.exit_code == 3
    assert result.stdout == EXPECTED


@pytest.mark.parametrize("form", ["text", "json", "markdown", "sarif"])
def test_nothing_changes_between_a_directory_and_itself(run: Run, policies: Path, form: str) -> None:
    result = run("diff", "policies", "policies", "-o", form)
    assert result.exit_code == 0, result.output
    assert ("no answer changes" in result.stdout) is (form in ("text", "markdown"))


def test_a_renamed_policy_is_proved_equal(run: Run, policies: Path, tmp_path: Path) -> None:
    (tmp_path / "new.yaml").write_text(POLICIES.replace("name: reads", "name: readers"))
    result = run("diff", "policies", "new.yaml")
    assert result.exit_code == 0
    assert result.stdout == (
        "shop (app=cart): proved equal, though its policies changed\n"
        "no answer changes (1 workload proved equal, 1 unchanged)\n"
    )


def test_one_change_for_many_workloads_is_told_of_each(run: Run, tmp_path: Path) -> None:
    everywhere = POLICIES.replace("namespace: shop", "namespace: istio-system")
    own = 'spec: {action: DENY, rules: [{to: [{operation: {ports: ["1"]}}]}]}'
    head = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
    others = "\n---\n".join(f"{head}metadata: {{name: p, namespace: ns-{number}}}\n{own}" for number in range(3))
    (tmp_path / "old.yaml").write_text(f"{everywhere}---\n{others}\n")
    (tmp_path / "new.yaml").write_text(f"{everywhere.replace('/admin*', '/admin/*')}---\n{others}\n")
    _, answer = compared(run, "old.yaml", "new.yaml")
    opened = {one["namespace"]: one["changes"][0]["command"] for one in answer["workloads"] if one["changes"]}
    assert set(opened) == {"istio-system", "any-other-namespace", "ns-0", "ns-1", "ns-2"}
    assert all(f"--namespace {namespace}" in command for namespace, command in opened.items())


def test_every_command_decides_as_it_is_told(run: Run, changed: Path) -> None:
    _, answer = compared(run, "policies", "new")
    changes = [change for workload in answer["workloads"] for change in workload["changes"]]
    assert {change["direction"] for change in changes} == {"newly allowed", "other rule only"}
    for change in changes:
        for policies, decision in (("new", change["new"]), ("policies", change["old"])):
            words = shlex.split(change["command"].replace("\\\n", ""))
            words[words.index("--policies") + 1] = policies
            result = run(*words[1:], "-o", "json")
            decided = json.loads(result.stdout)
            assert (decided["effect"], decided["rule"]) == (decision["effect"], decision["rule"])


def test_the_commands_of_bookinfo_decide_with_its_tokens(run: Run, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "policies", tmp_path / "new")
    gateway = tmp_path / "new" / "10-ingress.yaml"
    gateway.write_text(gateway.read_text().replace("[reader, moderator]", "[reader]").replace("/static/*", "/static*"))
    mesh = str(ROOT / "envoy-configs" / "mesh.yaml")
    result, answer = compared(run, str(ROOT / "policies"), "new", "--mesh", mesh)
    assert result.exit_code == 3
    assert answer["totals"] == {"newly allowed": 1, "newly denied": 1, "other status": 0}
    (workload,) = (one for one in answer["workloads"] if one["result"] != "unchanged")
    for change in workload["changes"]:
        done = run(*shlex.split(change["command"].replace("\\\n", ""))[1:])
        assert done.exit_code == (0 if change["new"]["effect"] == "allow" else 3), done.output
        assert f"of {mesh}" not in done.output


def test_sarif_points_at_the_rule(run: Run, changed: Path) -> None:
    result = run("diff", "policies", "new", "-o", "sarif")
    log = json.loads(result.stdout)
    assert log["version"] == "2.1.0"
    (one,) = log["runs"]
    places = [place for found in one["results"] for place in found["locations"]]
    assert {"uri": "new/shop.yaml"} in [place["physicalLocation"]["artifactLocation"] for place in places]
    assert {found["ruleId"] for found in one["results"]} <= {rule["id"] for rule in one["tool"]["driver"]["rules"]}


def test_markdown_keeps_what_policies_say_in_code(run: Run, policies: Path, tmp_path: Path) -> None:
    (tmp_path / "new.yaml").write_text(POLICIES.replace('"/cart*"', '"/a`b``*"'))
    result = run("diff", "policies", "new.yaml", "-o", "markdown")
    assert result.exit_code == 3
    assert "### " in result.stdout
    assert "```sh\nauthz check" in result.stdout


def test_what_is_not_decided_ends_with_one(run: Run, policies: Path, tmp_path: Path) -> None:
    (tmp_path / "new.yaml").write_text(POLICIES.replace("request.headers[x-team]", "request.headers[:path]"))
    result = run("diff", "policies", "new.yaml")
    assert result.exit_code == 1
    assert "not decided: policies ask for the header `:path`, which depends on other facts" in result.stdout


def test_refused_policies_end_with_their_problems(run: Run, policies: Path, tmp_path: Path) -> None:
    (tmp_path / "new.yaml").write_text(POLICIES.replace("methods", "method"))
    result = run("diff", "policies", "new.yaml")
    assert result.exit_code == 1
    assert "unknown field `method`" in result.stderr


@pytest.mark.slow
def test_the_same_requests_are_shown_every_time(policies: Path, tmp_path: Path) -> None:
    """Sets of texts have another order in each process, which must not reach a comment on a change."""
    many = ", ".join(f'"/{name}"' for name in ("amber", "beige", "coral", "denim", "ebony"))
    text = POLICIES.replace('["/cart*"]', f'["/cart*", {many}]').replace(
        "methods: [", "ports: ['9', '81', '70'], methods: ["
    )
    (tmp_path / "new.yaml").write_text(text)
    said = {
        subprocess.run(
            [sys.executable, "-m", "authz", "diff", "policies", "new.yaml"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": str(seed)},
            check=False,
        ).stdout
        for seed in (1, 2, 3)
    }
    assert len(said) == 1
    assert "newly allowed" in said.pop()


WAYPOINT = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: at-waypoint, namespace: shop}
spec:
  targetRefs: [{kind: Service, group: "", name: cart}]
  rules: [{to: [{operation: {methods: [GET]}}]}]
"""


def test_a_change_that_only_a_waypoint_would_obey_is_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text(WAYPOINT)
    (tmp_path / "new.yaml").write_text(WAYPOINT.replace("GET", "PUT"))
    told = "AuthorizationPolicy shop/at-waypoint differs, and no workload obeys it: its targetRefs name Service `cart`"
    result = run("diff", "old.yaml", "new.yaml")
    assert (result.exit_code, result.stderr) == (0, f"warning: {told}\n")
    assert compared(run, "old.yaml", "new.yaml")[1]["warnings"] == [told]
    assert told in run("diff", "old.yaml", "new.yaml", "-o", "markdown").stdout
    assert run("diff", "old.yaml", "old.yaml").stderr == ""


ADMINS = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: admins, namespace: shop}
spec:
  selector: {matchLabels: {app: APP}}
  rules: [{when: [{key: "request.auth.claims[roles]", values: [admin]}]}]
"""


def test_rules_on_tokens_that_nothing_verifies_are_told(run: Run, tmp_path: Path) -> None:
    cart, web = ADMINS.replace("APP", "cart"), ADMINS.replace("APP", "web").replace("admins", "others")
    (tmp_path / "old.yaml").write_text(f"{cart}---\n{web}")
    (tmp_path / "new.yaml").write_text(f"{cart}---\n{web}".replace("[admin]", "[admin, owner]"))
    result = run("diff", "old.yaml", "new.yaml")
    assert result.exit_code == 0
    assert result.stdout.endswith("no answer changes (2 workloads proved equal, 1 unchanged)\n")
    assert result.stderr == (
        "warning: rules ask for tokens at shop (app=cart) and 1 more, and no RequestAuthentication applies there, so "
        "no request has claims: if one is in another file, name that file too\n"
    )
    for name in ("old.yaml", "new.yaml"):
        with (tmp_path / name).open("a") as file:
            file.write("---\n" + TOKENS.replace("KEYS", "jwksUri: https://idp.test/a"))
    result = run("diff", "old.yaml", "new.yaml")
    assert (result.exit_code, result.stderr) == (3, "")


TOKENS = """\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: idp, namespace: shop}
spec: {jwtRules: [{issuer: https://idp.test, KEYS}]}
"""
INLINE = """jwks: '{"keys": [{"kty": "RSA", "n": "AQ", "e": "AQAB"NAME}]}'"""


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ("jwksUri: https://idp.test/b", "signed by a key from https://idp.test/b"),
        (INLINE.replace("NAME", ', "kid": "one"'), "signed by the key `one`"),
        (INLINE.replace("NAME", ""), "signed by a key that is written in one side"),
    ],
)
def test_whose_key_signed_a_token_is_told_where_that_decides(run: Run, tmp_path: Path, keys: str, told: str) -> None:
    (tmp_path / "old.yaml").write_text(TOKENS.replace("KEYS", "jwksUri: https://idp.test/a"))
    (tmp_path / "new.yaml").write_text(TOKENS.replace("KEYS", keys))
    _, answer = compared(run, "old.yaml", "new.yaml")
    requests = {
        change["direction"]: change["request"] for workload in answer["workloads"] for change in workload["changes"]
    }
    assert requests["newly allowed"].endswith(told)
    assert requests["newly denied"].endswith("signed by a key from https://idp.test/a")


# --- git -------------------------------------------------------------------------------------------------------------


def git(folder: Path, *arguments: str) -> str:
    settings = ("-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false")
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    done = subprocess.run(
        ["git", *settings, *arguments], cwd=folder, check=True, capture_output=True, text=True, env=environment
    )
    return done.stdout.strip()


@pytest.fixture
def repository(policies: Path, tmp_path: Path) -> Path:
    """Two commits: the second one allows more."""
    (policies / ".hidden.yaml").write_text("never: read\n")
    (policies / "README.md").write_text("no policies\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "one")
    (policies / "shop.yaml").write_text(POLICIES.replace('["GET"]', '["GET", "HEAD"]'))
    git(tmp_path, "commit", "-q", "-a", "-m", "two")
    return tmp_path


@NEEDS_GIT
@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("HEAD~1:policies/", "policies/", 3),
        ("HEAD~1:policies", "HEAD:policies", 3),
        ("HEAD~1:policies/shop.yaml", "HEAD:./policies/shop.yaml", 3),
        ("HEAD~1:", "HEAD:", 3),
        ("HEAD:policies", "policies", 0),
    ],
)
def test_revisions_are_compared_and_nothing_is_touched(
    run: Run, repository: Path, old: str, new: str, code: int
) -> None:
    before = git(repository, "status", "--porcelain")
    result = run("diff", old, new)
    assert result.exit_code == code, result.output
    assert git(repository, "status", "--porcelain") == before
    if code == 3:
        assert "request: HEAD " in result.stdout
        assert (
            "--policies policies" in result.stdout
            or "--policies ./" in result.stdout
            or "--policies . " in result.stdout
        )


@NEEDS_GIT
def test_a_revision_is_read_from_a_folder_below(run: Run, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository / "policies")
    assert run("diff", "HEAD~1:.", ".").exit_code == 3
    assert run("diff", "HEAD~1:../policies", ".").exit_code == 3


@NEEDS_GIT
def test_attributes_of_git_hide_no_policy(run: Run, repository: Path) -> None:
    (repository / "policies" / ".gitattributes").write_text("*.yaml export-ignore\n")
    git(repository, "add", ".")
    git(repository, "commit", "-q", "-m", "hidden from archives")
    assert run("diff", "HEAD~2:policies", "HEAD:policies").exit_code == 3
    assert run("diff", "HEAD:policies", "policies").exit_code == 0


@NEEDS_GIT
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere", "error: `nowhere` is no file or directory; a git revision is written `REVISION:PATH`\n"),
        ("v9:policies", "error: git has no `v9:policies`: "),
        ("HEAD:elsewhere", "error: git has no `HEAD:elsewhere`: "),
    ],
)
def test_what_is_not_there_is_said(run: Run, repository: Path, name: str, said: str) -> None:
    result = run("diff", name, "policies")
    assert result.exit_code == 1
    assert result.stderr.startswith(said)


def test_without_git_a_revision_is_refused(run: Run, policies: Path) -> None:
    result = run("diff", "HEAD:policies", "policies", PATH="")
    assert result.exit_code == 1
    assert result.stderr == "error: `HEAD:policies` names a git revision, and there is no `git` here\n"


@NEEDS_GIT
@pytest.mark.parametrize(("gate", "code"), [("", 0), ("1", 3)])
def test_the_script_for_ci_comments_on_a_change(repository: Path, gate: str, code: int) -> None:
    environment = {
        **os.environ,
        "AUTHZ": f"{sys.executable} -m authz",
        "PYTHONPATH": str(ROOT),
        "COMMENT": "cat > comment.md",
        "GATE": gate,
    }
    arguments = [str(SCRIPT), "HEAD~1", "policies"]
    done = subprocess.run(arguments, cwd=repository, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    assert (repository / "comment.md").read_text().startswith("### 1 newly allowed")


MESH = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "trustDomain: DOMAIN"}
"""
ENTRY = """\
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: NAME, namespace: shop}
spec: {address: 127.0.0.1, serviceAccount: ACCOUNT, labels: {app: NAME, tier: TIER}, ports: {http: PORT}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: NAME, namespace: shop}
spec:
  workloadSelector: {labels: {app: NAME}}
  ingress: [{port: {number: PORT, name: http, protocol: HTTP}, defaultEndpoint: "127.0.0.1:1PORT"}]
"""


def described(*entries: str, domain: str = "cluster.local") -> str:
    """Each entry is ``name account tier port``."""
    text = MESH.replace("DOMAIN", domain)
    for entry in entries:
        one = ENTRY
        for word, value in zip(("NAME", "ACCOUNT", "TIER", "PORT"), entry.split(), strict=True):
            one = one.replace(word, value)
        text += one
    return text


CART = "cart cart front 9080"


@pytest.mark.parametrize(
    ("old", "new", "code", "totals", "notes"),
    [
        (described(CART), described(CART), 0, (0, 0), []),
        (
            described(CART),
            described(CART, domain="other"),
            3,
            (1, 1),
            ["the trust domain changes", "which trust domains"],
        ),
        (described("cart cart front 9080"), described("cart cart back 9080"), 0, (0, 0), []),
        (
            described(CART),
            described("cart trolley front 9080"),
            0,
            (0, 0),
            ["shop/cart calls as service account `trolley`"],
        ),
        (described(CART), described(CART, "web web front 8081"), 0, (0, 0), ["shop/web is new"]),
        (described(CART, "web web front 8081"), described(CART), 0, (0, 0), ["shop/web is gone"]),
        (MESH.replace("DOMAIN", "a"), described(CART, domain="a"), 0, (0, 0), ["one mesh file describes workloads"]),
    ],
)
def test_another_mesh_file_is_compared(
    run: Run, policies: Path, old: str, new: str, code: int, totals: tuple[int, int], notes: list[str]
) -> None:
    Path("old-mesh.yaml").write_text(old)
    Path("new-mesh.yaml").write_text(new)
    assert policies.is_dir()
    result, answer = compared(run, "policies", "policies", "--mesh", "old-mesh.yaml", "--new-mesh", "new-mesh.yaml")
    assert result.exit_code == code, result.output
    assert (answer["totals"]["newly allowed"], answer["totals"]["newly denied"]) == totals
    assert len(answer["notes"]) == len(notes)
    assert all(said.startswith(wanted) for said, wanted in zip(answer["notes"], notes, strict=True))
    for change in (change for workload in answer["workloads"] for change in workload["changes"]):
        assert "--mesh new-mesh.yaml" in change["command"]
        done = run(*shlex.split(change["command"].replace("\\\n", ""))[1:])
        assert done.exit_code == (0 if change["new"]["effect"] == "allow" else 3), done.output


def test_a_workload_with_other_labels_is_compared_under_each(run: Run, policies: Path) -> None:
    Path("old-mesh.yaml").write_text(described(CART))
    Path("new-mesh.yaml").write_text(
        described(CART)
        .replace("{app: cart, tier: front}", "{app: cart2, tier: front}")
        .replace("labels: {app: cart}", "labels: {app: cart2}")
    )
    assert policies.is_dir()
    result, answer = compared(run, "policies", "policies", "--mesh", "old-mesh.yaml", "--new-mesh", "new-mesh.yaml")
    assert result.exit_code == 3
    assert answer["totals"]["newly allowed"] > 0  # the policies that selected it do so no more
    (workload,) = answer["workloads"]
    assert workload["labels"] == {"app": "cart2", "tier": "front"}


def test_ports_that_only_one_side_has_are_noted(run: Run, policies: Path) -> None:
    Path("old-mesh.yaml").write_text(described(CART))
    Path("new-mesh.yaml").write_text(described("cart cart front 9081"))
    assert policies.is_dir()
    result, answer = compared(run, "policies", "policies", "--mesh", "old-mesh.yaml", "--new-mesh", "new-mesh.yaml")
    assert result.exit_code == 1
    assert answer["left_out"] == ["shop/cart has no port that it had before"]
    assert answer["notes"] == [
        "shop/cart: port 9081 is new, and is not compared",
        "shop/cart: port 9080 is gone, and is not compared",
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--mesh", "nope.yaml"), "`nope.yaml` is no file or directory"),
        (("--mesh", "policies"), "name the file"),
        (("--new-mesh", "policies"), "--new-mesh needs the mesh file of OLD"),
    ],
)
def test_a_mesh_file_that_is_none_is_refused(run: Run, policies: Path, arguments: tuple[str, ...], said: str) -> None:
    shutil.copy(policies / "shop.yaml", policies / "more.yaml")
    (policies / "more.yaml").write_text((policies / "shop.yaml").read_text().replace("name: ", "name: more-"))
    result = run("diff", "policies", "policies", *arguments)
    assert (result.exit_code, said in result.stderr) == (2, True), result.output


@NEEDS_GIT
def test_a_mesh_file_may_be_at_a_revision_and_the_script_takes_both(repository: Path) -> None:
    (repository / "mesh.yaml").write_text(described(CART))
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.test", "-c", "commit.gpgsign=false"]
    for command in (["add", "-A"], ["commit", "-qm", "mesh"]):
        subprocess.run([*git, *command], cwd=repository, check=True)
    (repository / "mesh.yaml").write_text(described(CART, domain="other"))
    environment = {**os.environ, "AUTHZ": f"{sys.executable} -m authz", "PYTHONPATH": str(ROOT)}
    arguments = [str(SCRIPT), "HEAD", "policies", "mesh.yaml"]
    done = subprocess.run(arguments, cwd=repository, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("### 1 newly allowed, 1 newly denied")
    assert "note: the trust domain changes from `cluster.local` to `other`" in done.stdout
    assert "--mesh mesh.yaml" in done.stdout


@NEEDS_GIT
def test_the_script_for_ci_ends_with_one_where_something_is_wrong(repository: Path) -> None:
    environment = {**os.environ, "AUTHZ": f"{sys.executable} -m authz", "PYTHONPATH": str(ROOT)}
    arguments = [str(SCRIPT), "v9", "policies"]
    done = subprocess.run(arguments, cwd=repository, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "git has no `v9:policies`" in done.stderr
