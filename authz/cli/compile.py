"""``authz compile``: policies as filters of Envoy, for people with their own Envoy."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from authz.cli import policy_files
from authz.cli import terminal as out
from authz.cli.jwks_option import JWKS, read_key_sets
from authz.cli.traffic_option import TRAFFIC
from authz.core.asked import asked_of
from authz.core.attributes import Json, Workload
from authz.core.compiler import compile_engine
from authz.core.engine import Engine
from authz.policy.reader import read_policies
from authz.sources.policies.directory import read_directory

if TYPE_CHECKING:
    from authz.envoy.native.filters import NativeFilters
    from authz.envoy.native.limits import Report
    from authz.envoy.native.value_matchers import Message
    from authz.mesh.nouns import MeshWorkload

HTTP, TCP = "http-filters.json", "network-filters.json"
"""Files of ``--out``, beside one for each slot; JSON is YAML, and much faster to write."""


@click.command("compile", short_help="Compile policies to filters that Envoy decides by itself.")
@click.option(
    "--policies", required=True, type=click.Path(exists=True, path_type=Path), help="A file or directory of policies."
)
@click.option("--mesh", required=True, type=click.Path(exists=True, dir_okay=False), help="The mesh description.")
@TRAFFIC
@click.option("--to", "name", required=True, help="Name of the workload.")
@click.option(
    "--form",
    type=click.Choice(["linear", "indexed", "auto"]),
    default="auto",
    help="linear: every rule in turn, as Istio does it; indexed: looked up; auto: looked up where there are many.",
)
@JWKS
@click.option("--report", "only_report", is_flag=True, help="Say for each rule whether it is native, and if not, why.")
@out.answer_form("yaml", "json")
@click.option("--out", "directory", type=click.Path(file_okay=False, path_type=Path), help="Write files there instead.")
def command(
    policies: Path,
    mesh: str,
    traffic: str | None,
    name: str,
    form: str,
    jwks: tuple[str, ...],
    only_report: bool,
    output: str,
    directory: Path | None,
) -> None:
    """
    Compile the policies of one workload to Envoy's own filters.

    HTTP filters stand before the router, network filters before the TCP proxy. If something must stay with
    the check, nothing is written, the reasons are given and the exit code is 3: filters without it would decide
    otherwise.

    \b
    authz compile --policies policies/ --mesh mesh.yaml --to reviews-v1 --report
    authz compile --policies policies/ --mesh mesh.yaml --to reviews-v1 --out filters/
    """
    from authz.envoy.native import filters, limits
    from authz.envoy.native.indexed import Form
    from authz.envoy.native.yaml_text import as_yaml

    described = policy_files.read_workloads(mesh, traffic)
    target = _find(described.workloads, name)
    engine = compile_engine(read_policies(read_directory(policies), described.config).resources, described.config)
    workload = Workload(target.namespace, frozenset(target.labels.items()), target.service_account, target.name)
    key_sets = read_key_sets(jwks)
    report = limits.report(engine, workload)
    http = filters.http_filters(engine, workload, key_sets, form=Form(form), gateway=bool(target.servers))
    _remark(engine, workload, key_sets, http)
    if only_report:
        _print_report(report, http, output)
        raise SystemExit(out.Exit.YES if report.is_native else out.Exit.NO)
    if not report.is_native:
        out.remark(f"`{name}` stays with the check:")
        for reason in report.reasons:
            out.remark(f"  {reason}")
        raise SystemExit(out.Exit.NO)
    tcp = filters.tcp_filters(engine, workload)
    if directory is not None:
        _write(directory, http, tcp, _slots(engine, workload, http))
        return
    found: dict[str, Json] = {
        "http_filters": [one.as_extension() for one in http.filters],
        "network_filters": [one.as_extension() for one in tcp.filters],
    }
    if output == "json":
        click.echo(json.dumps(found, indent=1, ensure_ascii=False))
    else:
        click.echo(as_yaml(found), nl=False)


def _find(workloads: Sequence["MeshWorkload"], name: str) -> "MeshWorkload":
    for workload in workloads:
        if workload.name == name:
            return workload
    known = ", ".join(sorted(workload.name for workload in workloads))
    raise click.ClickException(f"the mesh has no workload `{name}`; it has {known or 'none'}")


def _remark(engine: Engine, workload: Workload, key_sets: dict[str, str], http: "NativeFilters") -> None:
    from authz.envoy.native import jwt, limits

    for rule in engine.for_workload(workload).jwt_rules:
        text = rule.jwks or key_sets.get(rule.keys_from)
        where = f"{rule.location}: {rule.name}"
        if text is None:
            _, _, address = rule.keys_from.partition(":")
            out.remark(f"{where}: no keys: every token is refused; give them with `--jwks {address}=FILE`")
        elif not jwt.has_usable_key(text):
            out.remark(f"{where}: the key set has no usable key: every token is refused")
    for line in limits.remarks(http):
        out.remark(line)


def _print_report(report: "Report", http: "NativeFilters", output: str) -> None:
    if output == "json":
        out.print_json(_as_json(report, http))
        return
    rows = [
        (f"{one.resource} rules[{one.rule}]", one.stage, "check" if one.reason else "native", one.reason)
        for one in report.rules
    ]
    if rows:
        out.print_table(("RULE", "STAGE", "DECIDED BY", "WHY"), rows)
        out.say()
    for size in http.sizes:
        looked = f", {size.lookups} look-ups, largest bucket {size.largest}" if size.lookups else ""
        out.say(f"{size.stage}: {out.count(size.rules, 'rule')}, {size.form}{looked}")
    for reason in report.workload:
        out.say(f"stays with the check: {reason}")
    native = sum(one.is_native for one in report.rules)
    verdict = "Envoy decides by itself" if report.is_native else "the workload stays with the check"
    out.say(f"{native} of {out.count(len(report.rules), 'rule')} native: {verdict}")


def _as_json(report: "Report", http: "NativeFilters") -> Json:
    return {
        "native": report.is_native,
        "reasons": list(report.reasons),
        "rules": [
            {
                "resource": one.resource,
                "rule": one.rule,
                "stage": one.stage,
                "native": one.is_native,
                "reason": one.reason or None,
                "place": f"{one.location.file}:{one.location.line}",
            }
            for one in report.rules
        ],
        "stages": [
            {
                "stage": size.stage,
                "rules": size.rules,
                "form": size.form.value,
                "lookups": size.lookups,
                "largest_bucket": size.largest,
                "copies": size.copies,
            }
            for size in http.sizes
        ],
    }


def _slots(engine: Engine, workload: Workload, http: "NativeFilters") -> "Sequence[Message]":
    from authz.envoy.native.filters_version import filters_version
    from authz.envoy.native.slots import fill_slots

    asked = asked_of(engine.for_workload(workload))
    return fill_slots(http.filters, engine.mesh, filters_version(engine, workload), asked)


def _write(directory: Path, http: "NativeFilters", tcp: "NativeFilters", slots: "Sequence[Message]") -> None:
    """Write the filters, and the HTTP ones as resources that a running Envoy follows; each renamed into place."""
    from authz.envoy.rendered_files import write_files

    contents: dict[str, Json] = {
        HTTP: [one.as_extension() for one in http.filters],
        TCP: [one.as_extension() for one in tcp.filters],
        **{f"{slot['name']}.json": {"resources": [slot]} for slot in slots},
    }
    data = {file: (json.dumps(content, ensure_ascii=False) + "\n").encode() for file, content in contents.items()}
    written = write_files(directory, data)
    out.say(f"{len(written)} of {out.count(len(data), 'file')} written in {directory}")
