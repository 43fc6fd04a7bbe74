"""The report: tables in Markdown, which read well as text too, and one SVG picture; both from the JSON alone."""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import cycle
from typing import Any

from benchmarks import native_reload

KEPT_UP = 0.98
"""A contender that answers a smaller share of a rate does not keep up, and its latency says nothing."""
OURS, OTHERS = "#2f6f4f", "#8d99ae"
_OUR_LINES, _OTHER_LINES = ("#2f6f4f", "#57a773", "#9bd1a8", "#17a398"), ("#c1121f", "#3d5a80", "#b08968")
Result = Mapping[str, Any]


def markdown(result: Result) -> str:
    """All tables."""
    cores = result["cores"]
    place = f"servers on core {cores['servers'][0]}, load on {cores['load']}" if cores["servers"] else "nothing pinned"
    plan = result["plan"]
    lines = [
        f"Run of {result['began']}, {result['took_seconds']} s; {place}; medians of {plan['rounds']} runs of "
        f"{plan['seconds']:g} s ({plan['growth_rounds']} for growth).",
        "",
        ", ".join(f"{name} {value}" for name, value in result["machine"].items()) + ".",
        "",
    ]
    lines += [f"Left out: {name}: {reason}." for name, reason in result["missing"].items()]
    said = in_short(result)
    if said:
        lines += ["**In short**", "", *(f"- {sentence}" for sentence in said), ""]
    if "check" in result:
        lines += [
            "**The check function, bytes to bytes**",
            "",
            *_table(
                ("", "CPU µs", "wall µs"),
                [(name, f"{row['cpu_us']:.1f}", f"{row['wall_us']:.1f}") for name, row in result["check"].items()],
            ),
        ]
    for name, title in (
        ("straight", "Straight at the server, 64 requests waiting"),
        ("through", "Through an Envoy, 32 requests waiting"),
    ):
        if name in result:
            lines += [f"**{title}**", "", *_saturated(result[name])]
            lines += _paced(result[name])
    for name, title in (
        ("growth straight", "Growth with policies on one workload, straight: requests/s"),
        ("growth through", "Growth with policies on one workload, through an Envoy: requests/s"),
    ):
        if result.get(name):
            lines += [f"**{title}**", "", *_growth(result[name])]
    if "native" in result:
        lines += ["**Native enforcement**", "", *_native(result)]
    if "loading" in result:
        lines += ["**Loading**", "", *_loading(result["loading"])]
    return "\n".join(lines) + "\n"


def in_short(result: Result) -> list[str]:
    """The comparisons that people ask for, each a sentence; those of parts that were not run are left out."""
    found = []
    straight = {row["contender"]: row for row in result.get("straight", ())}
    for ours in ("authz, hosted", "authz, grpcio"):
        against = [
            f"{straight[ours]['requests_per_second'] / straight[other]['requests_per_second']:.1f} times {other}"
            f" ({straight[other]['requests_per_second']:,.0f})"
            for other in ("OPA-Envoy", "OPA-Envoy, token cache")
            if ours in straight and other in straight
        ]
        if against:
            rate = straight[ours]["requests_per_second"]
            found.append(
                f"Requests/s straight, token verified and decision logged on both sides: {ours} {rate:,.0f}, "
                f"{' and '.join(against)}."
            )
    through = {row["contender"]: row for row in result.get("through", ())}
    late = {name: cell for name, row in through.items() if (cell := _p99(row, 2_000)) is not None and "+" in name}
    if late:
        told = ", ".join(f"{name.removeprefix('Envoy + ')} {cell}" for name, cell in late.items())
        found.append(f"p99 through an Envoy at 2,000 requests/s: {told}.")
    grown = [row for row in result.get("growth through", ()) if row["policies"] == 10_000]
    if grown:
        told = ", ".join(f"{row['contender']} {row['requests_per_second']:,.0f}" for row in grown)
        found.append(f"Requests/s through an Envoy with 10,000 policies on one workload: {told}.")
    found += _native_in_short(result)
    rows = {(row["contender"], row["policies"]): row for row in result.get("growth straight", ())}
    sizes = sorted({size for _, size in rows})
    told = ", ".join(
        f"{name} {rows[name, sizes[-1]]['cpu_us'] / rows[name, sizes[0]]['cpu_us']:.2f} times"
        for name in dict.fromkeys(name for name, _ in rows)
    )
    if len(sizes) > 1:
        found.append(f"CPU of a request with {sizes[-1]:,} policies against {sizes[0]:,}: {told}.")
    return found


NATIVE, NO_LOG, LINEAR = "Envoy + authz native", "Envoy + authz native, no log", "Istio's filters"


def _native_in_short(result: Result) -> list[str]:
    """Native enforcement with the record of every request, beside what it takes the place of."""
    rows = {(row["contender"], row["policies"]): row for row in result.get("growth through", ())}
    found = []
    for size in sorted({size for _, size in rows}):
        ours = rows.get((NATIVE, size))
        against = [
            f"{ours['requests_per_second'] / rows[other, size]['requests_per_second']:.2f} times {other}"
            for other in ("Envoy + authz hosted", LINEAR, NO_LOG)
            if ours is not None and (other, size) in rows
        ]
        if ours is not None and size in (1, 10_000):
            found.append(
                f"{NATIVE} with a record of every request, {size:,} {'policy' if size == 1 else 'policies'}: "
                f"{ours['requests_per_second']:,.0f} requests/s, {', '.join(against)}; the last record was written "
                f"{ours['records_seconds']:.1f} s after the load ended."
            )
    for name in (NATIVE, NO_LOG):
        if (name, 1) in rows and (name, 10_000) in rows:
            grown = rows[name, 10_000]["cpu_us"] / rows[name, 1]["cpu_us"]
            found.append(f"CPU of a request with 10,000 policies against 1: {name} {grown:.2f} times.")
    through = {row["contender"]: row for row in result.get("through", ())}
    if "Envoy alone" in through and NATIVE in through:
        alone, ours = (_p99(through[name], 2_000) for name in ("Envoy alone", NATIVE))
        if alone and ours:
            found.append(f"p99 at 2,000 requests/s: Envoy alone {alone}, {NATIVE} {ours}.")
    return found


def _native(result: Result) -> list[str]:
    found = result["native"]
    lines = [f"- {native_reload.sentence(found['reload'])}"]
    for name, row in found["records"].items():
        lines.append(f"- {name}: {1e6 / row['cpu_us']:,.0f} records/s/core, {row['cpu_us']:.0f} µs of CPU a record.")
    return [*lines, ""]


def _p99(row: Mapping[str, Any], rate: int) -> str | None:
    """None when the rate was not tried."""
    paced = next((paced for tried, paced in row["paced"].items() if int(tried) == rate), None)
    if paced is None:
        return None
    return f"{paced['p99']:.2f} ms" if paced["achieved"] >= KEPT_UP * rate else "does not keep up"


def servers(result: Result) -> str:
    """The table of docs/servers.md: our servers beside empty ones."""
    names = ("empty, grpcio", "authz, grpcio", "empty, hosted", "authz, hosted")
    rows = [row for name in names for row in result["straight"] if row["contender"] == name]
    lines = [f"{result['machine']['cpu']}, Python {result['machine']['python']}, {result['began']}:", ""]
    return "\n".join([*lines, *_saturated(rows)])


BEGIN, END = "<!-- generated by make bench -->", "<!-- end of what is generated -->"


def inserted(page: str, text: str) -> str:
    """A page with the report between its two marks. Raises ValueError when it has none."""
    before, _, rest = page.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise ValueError(f"the page has no `{BEGIN}` and `{END}`")
    return f"{before}{BEGIN}\n\n{text}\n{END}{after}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    rows = list(rows)
    widths = [max(len(cells[at]) for cells in (head, *rows)) for at in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return f"| {first[0]:<{first[1]}} | " + " | ".join(f"{cell:>{width}}" for cell, width in others) + " |"

    rule = f"|{'-' * (widths[0] + 2)}|" + "|".join("-" * (width + 1) + ":" for width in widths[1:]) + "|"
    return [line(head), rule, *map(line, rows), ""]


def _saturated(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    come_late = any(row["records_seconds"] for row in rows)
    return _table(
        ("", "requests/s", "CPU µs", "MB", "start s", *(("records after s",) if come_late else ())),
        [
            (
                row["contender"],
                f"{row['requests_per_second']:,.0f}",
                f"{row['cpu_us']:.0f}",
                f"{row['megabytes']:.0f}",
                f"{row['started_seconds']:.1f}",
                *((f"{row['records_seconds']:.1f}" if row["records_seconds"] else "–",) if come_late else ()),
            )
            for row in rows
        ],
    )


def _paced(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    rates = list(rows[0]["paced"]) if rows else []
    if not rates:
        return []

    def cell(paced: Mapping[str, float], rate: str | int) -> str:
        if paced["achieved"] < KEPT_UP * int(rate):
            return "does not keep up"
        return f"{paced['p50']:.2f} / {paced['p99']:.2f} / {paced['p999']:.2f}"

    return [
        "Latency in ms at a fixed rate, p50 / p99 / p99.9:",
        "",
        *_table(
            ("", *(f"{int(rate):,}/s" for rate in rates)),
            [(row["contender"], *(cell(row["paced"][rate], rate) for rate in rates)) for row in rows],
        ),
    ]


def _growth(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    sizes = list(dict.fromkeys(row["policies"] for row in rows))
    names = list(dict.fromkeys(row["contender"] for row in rows))
    found = {(row["contender"], row["policies"]): row for row in rows}

    def cells(name: str) -> list[str]:
        return [f"{found[name, size]['requests_per_second']:,.0f}" if (name, size) in found else "" for size in sizes]

    def last(name: str) -> list[str]:
        row = found.get((name, sizes[-1]))
        return [f"{row['started_seconds']:.1f}", f"{row['megabytes']:.0f}"] if row else ["", ""]

    head = ("policies", *(f"{size:,}" for size in sizes), f"start s at {sizes[-1]:,}", "MB")
    return _table(head, [(name, *cells(name), *last(name)) for name in names])


def _loading(found: Mapping[str, Any]) -> list[str]:
    many, often = found["10,000 policies"], found["1,000 reloads"]
    lines = [
        f"- {many['policies']:,} policies: read and compiled in {many['seconds']:.2f} s "
        f"({many['cpu_seconds']:.2f} s of CPU), {many['bytes_each'] / 1e3:.1f} kB of memory each.",
        f"- {often['reloads']:,} reloads of {often['policies']} policies: {often['bytes_each']:+.0f} bytes and "
        f"{often['blocks_each']:+.2f} blocks a reload after the first 200; {often['megabytes']:.0f} MB at the end.",
    ]
    for name in ("latency, grpcio", "latency, hosted"):
        row = found[name]
        lines.append(
            f"- {name.partition(', ')[2]}, {row['rate']} checks/s while 10,000 policies come in force "
            f"({row['loads']} times, {row['seconds']:.1f} s each): "
            f"p50 {row['quiet_p50']:.2f} → {row['loading_p50']:.2f} ms, "
            f"p99 {row['quiet_p99']:.2f} → {row['loading_p99']:.2f} ms "
            f"({row['loading_p99'] / row['quiet_p99']:.1f} times)."
        )
    return [*lines, ""]


# --- the picture -------------------------------------------------------------------------------------------------

WIDTH, BAR, GAP, LABEL = 900, 16, 5, 215


def picture(result: Result) -> str:
    """Bars of throughput and of p99 at a fixed rate, and lines of growth; one under another."""
    panels: list[tuple[int, str]] = []
    for name, title in (("straight", "straight at the server"), ("through", "through an Envoy")):
        if name in result:
            rows = [(row["contender"], row["requests_per_second"]) for row in result[name]]
            panels.append(_bars(f"requests/s, {title}", rows, "{:,.0f}"))
            if rows and "2000" in _rates(result[name]):
                late = [
                    (row["contender"], row["paced"][rate]["p99"])
                    for row in result[name]
                    for rate in row["paced"]
                    if str(rate) == "2000" and row["paced"][rate]["achieved"] >= KEPT_UP * 2000
                ]
                panels.append(_bars(f"p99 in ms at 2,000 requests/s, {title} (only who keeps up)", late, "{:.2f}"))
    grown = [*result.get("growth straight", ()), *result.get("growth through", ())]
    if grown:
        panels.append(_lines("requests/s by number of policies, both axes logarithmic", grown))
    parts, top = [], 30
    for height, drawn in panels:
        parts.append(f'<g transform="translate(20,{top})">{drawn}</g>')
        top += height + 30
    machine = escape(f"{result['machine']['cpu']}, {result['began']}, medians of {result['plan']['rounds']} runs")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + 10}" '
        'font-family="system-ui, sans-serif" font-size="12" fill="#222">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}'
        f'<text x="20" y="{top}" fill="#666">{machine}</text></svg>\n'
    )


def _rates(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [str(rate) for rate in rows[0]["paced"]]


def _bars(title: str, rows: Sequence[tuple[str, float]], form: str) -> tuple[int, str]:
    most = max((value for _, value in rows), default=1.0)
    room = WIDTH - LABEL - 120
    parts = [f'<text font-weight="bold">{escape(title)}</text>']
    for number, (name, value) in enumerate(rows):
        y = 10 + number * (BAR + GAP)
        colour = OURS if "authz" in name else OTHERS
        length = max(1.0, value / most * room)
        parts.append(
            f'<text x="{LABEL - 8}" y="{y + 12}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{LABEL}" y="{y}" width="{length:.1f}" height="{BAR}" fill="{colour}"/>'
            f'<text x="{LABEL + length + 6:.1f}" y="{y + 12}">{form.format(value)}</text>'
        )
    return 10 + len(rows) * (BAR + GAP), "".join(parts)


def _lines(title: str, rows: Sequence[Mapping[str, Any]]) -> tuple[int, str]:
    height, left, right = 260, 60, WIDTH - 260
    sizes = sorted({row["policies"] for row in rows})
    rates = [row["requests_per_second"] for row in rows]
    low, high = math.floor(math.log10(min(rates))), math.ceil(math.log10(max(rates)))

    def x(size: int) -> float:
        span = math.log10(sizes[-1]) - math.log10(sizes[0]) or 1.0
        return left + (math.log10(size) - math.log10(sizes[0])) / span * (right - left)

    def y(rate: float) -> float:
        return 15 + (high - math.log10(rate)) / ((high - low) or 1) * (height - 45)

    parts = [f'<text font-weight="bold">{escape(title)}</text>']
    for power in range(low, high + 1):
        at = y(10**power)
        parts.append(
            f'<line x1="{left}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}" stroke="#ddd"/>'
            f'<text x="{left - 8}" y="{at + 4:.1f}" text-anchor="end">{10**power:,}</text>'
        )
    parts += [f'<text x="{x(size):.1f}" y="{height - 8}" text-anchor="middle">{size:,}</text>' for size in sizes]
    names = list(dict.fromkeys(row["contender"] for row in rows))
    ours, others = cycle(_OUR_LINES), cycle(_OTHER_LINES)
    for number, name in enumerate(names):
        own = [row for row in rows if row["contender"] == name]
        points = " ".join(f"{x(row['policies']):.1f},{y(row['requests_per_second']):.1f}" for row in own)
        colour = next(ours if "authz" in name else others)
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
            f'<rect x="{right + 20}" y="{20 + number * 20}" width="14" height="4" fill="{colour}"/>'
            f'<text x="{right + 40}" y="{26 + number * 20}">{escape(name)}</text>'
        )
    return height, "".join(parts)
