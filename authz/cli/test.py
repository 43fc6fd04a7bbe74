"""``authz test``: suites of test cases against policies."""

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.progress import Progress

from authz.analysis.suites.coverage import Coverage
from authz.analysis.suites.run import Select, run_suite
from authz.analysis.suites.suite import Suite
from authz.analysis.suites.suite_reader import LoadFiles, read_suite
from authz.cli import policy_files, report
from authz.cli import terminal as out
from authz.core.errors import sort_problems
from authz.sources.policies.directory import read_directory
from authz.sources.policies.watching import watch as changes_of
from authz.tokens.signing import KeyPool

if TYPE_CHECKING:
    from authz.analysis.mutants.mutation_run import MutationScore

_IS_SUITE = re.compile(rb"^(groups|documents)\s*:", re.MULTILINE)
"""Tells suites from policies in a directory."""


@click.command("test", short_help="Run suites of test cases against policies.")
@click.argument("paths", metavar="FILE...", nargs=-1, required=True, type=click.Path(exists=True, allow_dash=True))
@out.answer_form("pretty", "json", "junit")
@click.option("--run", metavar="PATTERN", help="Only cases whose file/group/case this regular expression matches.")
@click.option("--coverage", is_flag=True, help="Report which rules fired, and which never did.")
@click.option(
    "--threshold",
    metavar="PERCENT",
    type=click.FloatRange(0, 100),
    help="Minimum coverage for a yes; with --mutate, of mutants that are noticed.",
)
@click.option("--mutate", is_flag=True, help="Change the policies here and there: which changes does no case notice?")
@click.option("--watch", is_flag=True, help="Run again at every change of suites and policies, until Ctrl-C.")
@click.option("-v", "--verbose", is_flag=True, help="Name every case, rule and mutant.")
def command(
    paths: tuple[str, ...],
    output: str,
    run: str | None,
    coverage: bool,
    threshold: float | None,
    mutate: bool,
    watch: bool,
    verbose: bool,
) -> None:
    """
    Run suites in the conformance format (docs/testing-policies.md), requests and validation documents.

    In a directory every YAML file with `groups` or `documents` is a suite; `-` is stdin.

    \b
    authz test tests/policies.yaml
    authz test suites/ --run 'ingress/.*token' -v
    authz test suites/ --coverage --threshold 90
    authz test suites/ --mutate --threshold 80
    authz test suites/ --watch
    authz test suites/ -o junit > report.xml
    """
    try:
        select = Select(run) if run else None
    except re.error as error:
        raise click.BadParameter(f"`{run}` is not a regular expression: {error}", param_hint="--run") from error
    if watch and (output != "pretty" or policy_files.STDIN in paths):
        raise click.UsageError("--watch cannot be combined with -o, nor with `-`")
    if mutate and output == "junit":
        raise click.UsageError("--mutate cannot be combined with -o junit")

    def once(read: set[Path]) -> int:
        suites = [read_suite(name, data, load) for name, data, load in _found(paths, read)]
        collected = Coverage() if coverage or (threshold is not None and not mutate) else None
        pool, now = KeyPool(), time.time()
        done = _run(suites, select, collected, now, pool, is_pretty=output == "pretty", verbose=verbose)
        code = _exit(done, None if mutate else threshold)
        score = _mutate(suites, select, now, pool) if mutate and code == out.Exit.YES else None
        _print(done, collected, score, output, verbose=verbose)
        if mutate and score is None:
            out.remark("error: no mutant was judged, because only suites that pass can notice one")
        return _exit_mutated(score, threshold) if score is not None else code

    raise SystemExit(_watch(once, paths) if watch else once(set()))


def _watch(once: Callable[[set[Path]], int], paths: Sequence[str]) -> int:
    """Run again and again until Ctrl-C; answers the exit code of the last run."""
    code: int = out.Exit.FAILED
    try:
        while True:
            read = {Path(path) for path in paths}
            try:
                code = once(read)
            except OSError as error:  # a file is being replaced
                out.remark(f"error: {error.filename}: {error.strerror}")
            asyncio.run(_change(sorted(read)))
            out.say()
    except KeyboardInterrupt:
        return code


async def _change(paths: Sequence[Path]) -> None:
    """Wait for a change; say so once none can be missed."""
    ready = asyncio.Event()
    async with aclosing(changes_of(paths, ready=ready)) as changes:
        change = asyncio.ensure_future(anext(changes))
        await ready.wait()
        out.remark("waiting for a change; Ctrl-C ends")
        await change


def _mutate(suites: list[Suite], select: Select | None, now: float, pool: KeyPool) -> "MutationScore":
    from authz.cli.mutate_report import mutate as judge_all  # the prover, which no other run needs

    return judge_all(suites, select, now, pool)


def _print(
    done: report.Run, collected: Coverage | None, score: "MutationScore | None", output: str, *, verbose: bool
) -> None:
    if score is not None:
        from authz.cli import mutate_report
    if output == "json":
        mutation = mutate_report.as_json(score) if score is not None else None
        out.print_json({**report.as_json(done), "mutation": mutation})
    elif output == "junit":
        click.echo(report.as_junit(done))
    else:
        if collected is not None:
            report.print_coverage(collected, verbose=verbose)
        report.print_summary(done)
        if score is not None:
            mutate_report.print_mutants(score, verbose=verbose)


def _found(paths: Iterable[str], read: set[Path]) -> Iterable[tuple[str, bytes, LoadFiles]]:
    """Suites; ``read`` receives the paths of the policies that they name."""
    for path in paths:
        if path == policy_files.STDIN:
            yield "<stdin>", policy_files.read_bytes(path), _loader(Path(), read)
            continue
        is_folder = Path(path).is_dir()
        for name, data in read_directory(Path(path)):
            if not is_folder or _IS_SUITE.search(data):
                yield name, data, _loader(Path(name).parent, read)


def _loader(folder: Path, read: set[Path]) -> LoadFiles:
    def load(name: str) -> list[tuple[str, bytes]]:
        read.add(folder / name)
        return read_directory(folder / name)

    return load


def _run(
    suites: list[Suite],
    select: Select | None,
    coverage: Coverage | None,
    now: float,
    pool: KeyPool,
    *,
    is_pretty: bool,
    verbose: bool,
) -> report.Run:
    """Run everything; in the pretty form what fails is printed at once."""
    problems = sort_problems(problem for suite in suites for problem in suite.problems)
    run = report.Run(problems=problems, coverage=coverage)
    out.print_problems(problems, out.remarks())
    known = set(problems)
    with Progress(console=out.remarks(), transient=True, disable=not out.is_terminal()) as progress:
        task = progress.add_task("testing", total=sum(_size(suite) for suite in suites))
        for suite in suites:
            begun = len(run.results)
            started = time.perf_counter()
            for result in run_suite(suite, now, pool, select=select, coverage=coverage):
                run.results.append(result)
                run.durations.append(time.perf_counter() - started)
                progress.advance(task)
                if is_pretty and (verbose or not result.passed):
                    report.print_result(result, known)
                    known.update(result.problems if result.error else ())
                started = time.perf_counter()
            if is_pretty and len(run.results) > begun:
                report.print_file(suite.file, run.results[begun:])
    return run


def _size(suite: Suite) -> int:
    return sum(len(group.cases) for group in suite.groups) + len(suite.documents)


def _exit(run: report.Run, threshold: float | None) -> int:
    """Cases that could not be run count first, because then nobody knows the answer."""
    tally = run.tally()
    if tally["errors"] or any(problem.is_error for problem in run.problems) or not run.results:
        if not run.results:
            out.remark("error: no case was run")
        return out.Exit.FAILED
    if tally["failed"]:
        return out.Exit.NO
    if threshold is not None and run.coverage is not None and run.coverage.percent < threshold:
        out.remark(f"coverage {run.coverage.percent:.1f} % is below {threshold:g} %")
        return out.Exit.NO
    return out.Exit.YES


def _exit_mutated(score: "MutationScore", threshold: float | None) -> int:
    if not score.verdicts:
        out.remark("error: no mutant was judged: the suites have no policy that could be changed")
        return out.Exit.FAILED
    if threshold is not None and score.percent < threshold:
        out.remark(f"{score.percent:.1f} % of the mutants are noticed, which is below {threshold:g} %")
        return out.Exit.NO
    return out.Exit.YES
