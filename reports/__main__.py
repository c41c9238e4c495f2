"""`python -m parity.reports`: make the page of a run, apply the release gate, compare an upgrade, merge shards."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from parity import interruptions, records
from parity.console import Console, complain, prepare_streams, print_text, run_guarded, whole_number
from parity.errors import OutputError, UsageError
from parity.files import replace_text
from parity.reports.gate import baseline, known_warnings, merge, upgrade
from parity.reports.gate.parts import FIELD, part_of, whole_models
from parity.reports.gate.runs import from_baseline, load_run
from parity.reports.gate.shards import SECONDS, write_seconds
from parity.reports.lanes import upgrades
from parity.reports.lanes.environments import KEPT

RECORDS = Path("reports/out/records.jsonl")
PAGE = Path("reports/out/report.html")
# Options of pytest that select cells → metavar and help.
_SELECTION = {
    "-k": ("EXPRESSION", "by parts of names"),
    "-m": ("MARKS", "by marks, such as smoke"),
    "--architecture": ("NAME", "by exact name"),
    "--feature": ("NAME", "by exact name"),
    "--opset": ("N", "by number"),
}

_Result = TypeVar("_Result")

_EPILOG = """exit status:
  0  nothing is wrong
  1  --check finds a change (compared with the nearest baseline: something
     that is worse), or --diff, --upgrade or --bisect find a result that is
     worse or gone, or an error ratio that has grown
  2  wrong usage, records that cannot be read, or --accept would drop or take
     over what it was not allowed to"""
_USAGE = """%(prog)s [RECORDS ...] [--history RECORDS ...] …
       %(prog)s --check [RECORDS ...] [--format FORMAT]
       %(prog)s --accept [RECORDS ...] [--drop N] …
       %(prog)s --diff OLD NEW [--format FORMAT]
       %(prog)s --upgrade NAME==VERSION [-k EXPRESSION] …
       %(prog)s --bisect NAME FIRST..LAST [-k EXPRESSION] …
       %(prog)s --merge RECORDS ... [--output RECORDS]"""


def parser(prog: str = "python -m parity.reports") -> argparse.ArgumentParser:
    """The parser of the command line."""
    p = argparse.ArgumentParser(
        prog,
        usage=_USAGE,
        description="Make the page of a run from its records, or do one of the actions below.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument(
        "records",
        nargs="*",
        type=Path,
        metavar="RECORDS",
        help=f"records of one environment (default: {RECORDS}); of a check that ran again the last result counts",
    )
    action = p.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="compare with the baseline of the environment")
    action.add_argument("--accept", action="store_true", help="make these records the baseline of their environment")
    action.add_argument(
        "--diff",
        nargs=2,
        type=Path,
        metavar=("OLD", "NEW"),
        help="compare two runs; OLD and NEW are records or baselines",
    )
    action.add_argument(
        "--upgrade",
        metavar="NAME==VERSION",
        help="run the suite with another release of a package, in an environment above this one, and compare;"
        f" report, records and page are kept under {upgrades.DIRECTORY}",
    )
    action.add_argument(
        "--bisect",
        nargs=2,
        metavar=("NAME", "FIRST..LAST"),
        help="find the first release of a package with which a result is worse than with FIRST",
    )
    action.add_argument("--merge", action="store_true", help="join the records of all shards")
    p.add_argument(
        "--drop",
        type=whole_number,
        default=0,
        metavar="N",
        help="with --accept: drop the checks that were selected and have no result any more, if there are N of them"
        " (default: keep them)",
    )
    p.add_argument("--even-failed", action="store_true", help="with --accept: accept failures and errors, too")
    p.add_argument(
        "--history",
        nargs="+",
        type=Path,
        default=[],
        metavar="RECORDS",
        help="for the page: earlier runs, oldest first",
    )
    p.add_argument(
        "--baseline", type=Path, default=baseline.DIRECTORY, help="directory of the baselines (default: %(default)s)"
    )
    formats = ("text", "markdown", "json")
    p.add_argument("--format", choices=formats, default="text", help="for --check, --diff, --upgrade and --bisect")
    selection = p.add_argument_group("for --upgrade and --bisect", "The options of pytest that select cells.")
    for option, (metavar, text) in _SELECTION.items():
        selection.add_argument(option, action="append", default=[], metavar=metavar, help=text)
    selection.add_argument("-n", default="", metavar="WORKERS", help="processes (default: auto)")
    selection.add_argument(
        "--environments", type=Path, help=f"where environments are kept (default: {upgrades.HOME})", metavar="DIRECTORY"
    )
    p.add_argument(
        "--output",
        type=Path,
        help=f"file of the page, with a summary as .md (default: {PAGE}); file of --merge (default: {RECORDS}); file of"
        " --check and --diff (default: standard output)",
    )
    return p


def main(argv: Sequence[str] | None = None, prog: str = "python -m parity.reports") -> int:
    """Run the command; returns its exit status."""
    prepare_streams()
    args = parser(prog).parse_args(argv)
    return run_guarded(prog, lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    for name in ("drop", "even_failed"):
        if getattr(args, name) and not args.accept:
            raise UsageError(f"--{name.replace('_', '-')}: works only with --accept")
    if args.upgrade or args.bisect:
        return _other_releases(args)
    for option in (*_SELECTION, "-n", "--environments"):
        if getattr(args, option.strip("-")):
            raise UsageError(f"{option}: works only with --upgrade or --bisect")
    if args.diff and args.records:
        raise UsageError(f"--diff: got a third file {args.records[0]}, should be two; --merge joins shards")
    console = Console()
    if args.diff:
        console.progress("reading two runs")
        old, new = (load_run(path) for path in args.diff)
        console.clear()
        command = shlex.join(["python", "-m", "parity.reports", "--diff", *map(str, args.diff)])
        comparison = {**upgrade.difference(old, new), "command": command}
        _print(args, comparison, upgrade.report(comparison, markdown=args.format == "markdown"))
        return 1 if comparison["worse"] else 0
    if args.merge:
        return _merge(args)
    console.progress("reading records")
    environment, lines = join_runs(args.records or [RECORDS])
    console.clear()
    path = baseline.path_of(args.baseline, environment)
    if args.accept:
        allowance = baseline.Allowance(args.drop, args.even_failed)
        print_text(_write(path, lambda: baseline.accept(path, (environment, lines), allowance)))
        _write(path, lambda: write_seconds(args.baseline / SECONDS.name, whole_models(part_of(environment), lines)))
        known = args.baseline / known_warnings.FILE
        _write(known, lambda: known_warnings.accept(known, baseline.environment_of(environment), lines))
        return 0
    if args.check:
        verdict = baseline.verdict(path, (environment, lines), _accept_command(args))
        _print(args, verdict, baseline.report(verdict, markdown=args.format == "markdown"))
        return 0 if verdict["ok"] else 1
    return _page(args, environment, lines)


def _other_releases(args: argparse.Namespace) -> int:
    """Run the suite with other releases of a package; returns 1 if a release is worse."""
    chosen = [word for option in _SELECTION for value in getattr(args, option.strip("-")) for word in (option, value)]
    if args.bisect and args.records:
        raise UsageError(
            f"--bisect: got records {args.records[0]}, should be none; it runs everything that it compares"
        )
    options = upgrades.Options(
        arguments=chosen,
        workers=args.n or "auto",
        home=args.environments or upgrades.HOME,
        baselines=args.baseline,
        present=join_runs(args.records) if args.records else None,
    )
    interruptions.keep(KEPT)
    if args.upgrade:
        outcome = upgrades.run_upgrade(args.upgrade, options)
        text = upgrade.report(outcome, markdown=args.format == "markdown")
    else:
        package, versions = args.bisect
        outcome = upgrades.run_bisect(package, versions, options)
        text = upgrades.bisect_report(outcome, markdown=args.format == "markdown")
    _print(args, outcome, text)
    complain(f"kept in {outcome['report']}")
    return 1 if outcome["worse"] else 0


def join_runs(paths: Sequence[Path]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Join the records of several runs of one environment; the last result of a check counts.

    Raises:
        UsageError: the files are of different environments, or cannot be read.
    """
    whole: dict[str, Any] = {}
    lines: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for path in paths:
        environment, own = records.load(path)
        whole = whole or environment
        if baseline.environment_of(environment) != baseline.environment_of(whole):
            got, should = baseline.environment_of(environment), baseline.environment_of(whole)
            raise UsageError(f"{path}: is of {got}, should be of {should}, as {paths[0]} is; compare them with --diff")
        if whole is not environment:
            part = part_of(whole).join(part_of(environment))
            whole = {**whole, "workers": [*whole.get("workers", ()), *environment.get("workers", ())]}
            whole[FIELD] = part.as_json() if part else None
        again: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for line in own:
            again.setdefault((line["id"], line["check"]), []).append(line)
        lines.update(again)
    return whole, [line for some in lines.values() for line in some]


def _merge(args: argparse.Namespace) -> int:
    paths = args.records
    if not paths:
        raise UsageError("--merge: got no records, should be those of all shards")
    doubled = sorted({str(path) for path in paths if paths.count(path) > 1})
    if doubled:
        raise UsageError(f"--merge: {', '.join(doubled)} is given twice")
    output = args.output or RECORDS
    console = Console()
    console.progress(f"reading the records of {len(paths)} shards")
    runs = {path: records.load(path) for path in paths}
    console.clear()
    count = _write(output, lambda: merge.write(output, runs))
    print_text(f"{output}: {count:,} checks of {len(paths)} shards")
    return 0


def _page(args: argparse.Namespace, environment: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> int:
    from parity.registry import architectures
    from parity.reports.pages import page

    output = args.output or PAGE
    own = baseline.path_of(args.baseline, environment)
    place = own if own.exists() else baseline.nearest(args.baseline, environment)
    context = replace(
        page.against(from_baseline(place), (environment, lines)) if place else page.Context(),
        history=[records.load(path) for path in args.history],
        scripts=[path.parent / "reproductions" for path in args.records or [RECORDS]],
        kinds={each.name: each.kind for each in architectures()},
    )
    console = Console()
    console.progress(f"drawing the page of {len(lines):,} checks")
    _write(output, lambda: page.write(output, environment, lines, context))
    console.clear()
    print_text(f"{output} and {output.with_suffix('.md').name}: {len(lines):,} checks")
    return 0


def _accept_command(args: argparse.Namespace) -> str:
    """The command that accepts these records; `verdict` adds the options that the changes need."""
    arguments = [str(path) for path in args.records]
    if args.baseline != baseline.DIRECTORY:
        arguments += ["--baseline", str(args.baseline)]
    return shlex.join(["python", "-m", "parity.reports", "--accept", *arguments])


def _print(args: argparse.Namespace, outcome: Mapping[str, Any], text: str) -> None:
    """Print or write the text, or the outcome as JSON."""
    if args.format == "json":
        text = json.dumps(outcome, ensure_ascii=False, indent=1) + "\n"
    if args.output:
        _write(args.output, lambda: replace_text(args.output, text))
    else:
        print_text(text, end="")


def _write(path: Path, write: Callable[[], _Result]) -> _Result:
    """Call `write`, which writes the file, and return its result.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return write()
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error


if __name__ == "__main__":
    sys.exit(main())
