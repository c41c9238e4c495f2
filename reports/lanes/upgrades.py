"""`python -m parity.reports --upgrade` and `--bisect`: run the suite with other releases of a package and compare.

The results are kept part by part: an interrupted command continues.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion, Version

from parity import records
from parity.console import Console
from parity.environment import describe, version_of
from parity.errors import EnvironmentGap, ParityError, UsageError
from parity.reports.gate import baseline, merge, upgrade
from parity.reports.gate.changes import RED, Run, count_text
from parity.reports.gate.runs import FIELD, from_baseline
from parity.reports.lanes import environments
from parity.reports.lanes.environments import HOME, Release

DIRECTORY = Path("reports/upgrades")
# Tests in one part of a run: the most that an interruption loses.
TESTS_OF_A_PART = 1000
# Longest selection in the name of a report.
_LONGEST = 60
_SUITE = ("--pyargs", "parity.architectures", "-q", "-p", "no:cacheprovider")
_COLLECTED = re.compile(r"^(\d+)(?:/\d+)? tests? collected", re.MULTILINE)
# Exit statuses of pytest.
_COMPLETE, _USAGE, _NOTHING = (0, 1), 4, 5


class BrokenSuite(ParityError):
    """The suite of an environment fails before its first check, or is interrupted."""

    stage = "suite"


@dataclass(frozen=True)
class Options:
    """What to run, and where to write.

    Args:
        arguments: of pytest, which select cells.
        workers: of pytest-xdist, for `-n`.
        directory: of reports; records and page go into a folder next to each.
        home: where environments are kept.
        baselines: the directory of baselines.
        present: a run of this environment; without it, its baseline is used, or the cells are run in it.
        console: for progress.
    """

    arguments: Sequence[str] = ()
    workers: str = "auto"
    directory: Path = DIRECTORY
    home: Path = HOME
    baselines: Path = baseline.DIRECTORY
    present: Run | None = None
    console: Console = field(default_factory=lambda: Console(as_json=True))

    @property
    def suffix(self) -> str:
        """Distinguishes the report of a part from that of the whole."""
        words = re.sub(r"[^a-z0-9]+", "-", " ".join(self.arguments).lower()).strip("-")
        if len(words) > _LONGEST:
            words = f"{words[:_LONGEST]}-{hashlib.sha256(words.encode()).hexdigest()[:8]}"
        return f"-part-{words}" if words else ""

    def command(self, *action: str) -> str:
        """The command line that repeats this one."""
        return f"python -m parity.reports {shlex.join([*action, *self.arguments])}"


def requirement_of(text: str) -> Release:
    """`transformers==5.24.0` as a release.

    Raises:
        UsageError: the text is not NAME==VERSION.
    """
    try:
        requirement = Requirement(text)
        (specifier,) = requirement.specifier
        if specifier.operator != "==" or requirement.extras or requirement.marker or requirement.url:
            raise ValueError
        return Release(requirement.name, str(Version(specifier.version)))
    except (InvalidRequirement, InvalidVersion, ValueError) as error:
        raise UsageError(f"--upgrade: got {text}, should be NAME==VERSION such as transformers==5.24.0") from error


def range_of(text: str) -> tuple[Version, Version]:
    """`1.30.0..1.32.0` as two versions, the older first.

    Raises:
        UsageError: the text is not FIRST..LAST, or LAST is not later.
    """
    first, _, last = text.partition("..")
    try:
        if Version(first) < Version(last):
            return Version(first), Version(last)
    except InvalidVersion:
        pass
    raise UsageError(f"--bisect: got {text}, should be FIRST..LAST with a later LAST, such as 1.30.0..1.32.0")


def run_upgrade(requirement: str, options: Options) -> dict[str, Any]:
    """Run the selected cells with another release of a package, and compare with this environment.

    Returns:
        The result of `parity.reports.gate.upgrade.difference`, with title, command and report (its path).

    Raises:
        UsageError: there is no such release, or nothing is selected.
        EnvironmentGap: the release cannot be installed, or the package index cannot be reached.
        BrokenSuite: the suite is interrupted.
    """
    release = requirement_of(requirement)
    before = _present_version(release.package)
    _require_listed(release.package, [release.version])
    if Version(before) == Version(release.version):
        raise UsageError(f"--upgrade: {release.package} is {before} here already")
    name = f"{release.package}-{before}-to-{release.version}{options.suffix}"
    place = options.directory / name
    python = make_environment(release, options)
    old = _present_run(place, options)
    new = run_suite(python, place / "after", f"{release.package} {release.version}", options)
    _require_version(release, new)
    shutil.copyfile(place / "after" / "records.jsonl", place / "records.jsonl")
    comparison = upgrade.difference(old, new)
    comparison["title"] = f"{release.package} {before} → {release.version}, with {_others(release.package)}"
    comparison["command"] = options.command("--upgrade", f"{release.package}=={release.version}")
    write_page(place / "report.html", old, new, options)
    return _finish(comparison, options.directory / f"{name}.md", upgrade.report(comparison, markdown=True))


def run_bisect(package: str, text: str, options: Options) -> dict[str, Any]:
    """Find the first release of a range in which anything is worse than in the first of the range.

    Args:
        package: its name.
        text: the range, such as `1.30.0..1.32.0`.
        options: what to run.

    Returns:
        worse; first_bad, last_good: versions, or None; releases: version → verdict, for those that were tried;
        comparison of the two; title, command and report (its path).

    Raises:
        UsageError: the range has no two releases, or nothing is selected.
        EnvironmentGap: the first or last cannot be installed, or the package index cannot be reached.
        BrokenSuite: the suite does not run with the first.
    """
    first, last = range_of(text)
    _present_version(package)
    listed = [Version(each) for each in environments.list_releases(package)]
    versions = [
        str(each) for each in listed if first <= each <= last and (not each.is_prerelease or each in (first, last))
    ]
    _require_listed(package, [str(first), str(last)], [str(each) for each in listed])
    name = f"{package}-{first}-to-{last}-bisect{options.suffix}"
    search = Search(package, versions, options.directory / name, options)
    bad = search.first_bad()
    outcome: dict[str, Any] = {"worse": bad is not None, "first_bad": bad, "releases": search.verdicts, "cause": ""}
    outcome["command"] = options.command("--bisect", package, text)
    title = f"{package} {first} … {last}, with {_others(package)}"
    if bad is None:
        outcome.update(title=f"{title}: nothing is worse with the last", last_good=str(last))
    else:
        outcome.update(title=f"{title}: {bad} is the first that is worse", last_good=search.last_good)
        outcome.update(search.explain(bad))
    return _finish(outcome, options.directory / f"{name}.md", bisect_report(outcome, markdown=True))


class Search:
    """Bisects releases, of which the first is good, for the first bad release.

    Args:
        package: whose releases they are.
        versions: the releases, the oldest first.
        place: the directory of the results.
        options: what to run.
    """

    def __init__(self, package: str, versions: Sequence[str], place: Path, options: Options) -> None:
        self._package, self._versions, self._place, self._options = package, versions, place, options
        self._runs: dict[str, Run] = {}
        self._breakages: dict[str, str] = {}
        self.verdicts: dict[str, str] = {}
        self.last_good = versions[0]

    def first_bad(self) -> str | None:
        """The first release that is worse than the first of all; None if the last is not worse."""
        self._run(self._versions[0])
        self.verdicts[self._versions[0]] = "what the others are compared with"
        low, high = 0, len(self._versions) - 1
        if not self._is_bad(high):
            return None
        gaps: set[int] = set()
        while between := {*range(low + 1, high)} - gaps:
            middle = min(between, key=lambda number: (abs(2 * number - low - high), number))
            try:
                low, high = (low, middle) if self._is_bad(middle) else (middle, high)
            except EnvironmentGap as gap:
                gaps.add(middle)
                self.verdicts[self._versions[middle]] = f"cannot be tried: {gap}"
        self.last_good = self._versions[low]
        return self._versions[high]

    def explain(self, bad: str) -> dict[str, Any]:
        """What the first bad release breaks, compared with the last good release."""
        if bad in self._breakages:
            return {"cause": self._breakages[bad], "comparison": None}
        comparison = upgrade.difference(self._runs[self.last_good], self._runs[bad])
        return {"cause": comparison["verdict"], "comparison": comparison}

    def _is_bad(self, number: int) -> bool:
        version = self._versions[number]
        left = len(self._versions)
        self._options.console.say(f"{self._package} {version}: trying one of {count_text(left, 'release')}")
        try:
            comparison = upgrade.difference(self._runs[self._versions[0]], self._run(version))
        except BrokenSuite as error:
            self._breakages[version] = self.verdicts[version] = str(error)
            return True
        self.verdicts[version] = comparison["verdict"]
        return bool(comparison["worse"])

    def _run(self, version: str) -> Run:
        release = Release(self._package, version)
        python = make_environment(release, self._options)
        run = run_suite(python, self._place / version, f"{self._package} {version}", self._options)
        _require_version(release, run)
        self._runs[version] = run
        return run


def bisect_report(outcome: dict[str, Any], *, markdown: bool = False) -> str:
    """The outcome as text or Markdown."""
    command = f"`{outcome['command']}`" if markdown else outcome["command"]
    verdict = outcome["cause"] or "Nothing is worse."
    lines = [f"# {outcome['title']}" if markdown else outcome["title"], "", f"**{verdict}**" if markdown else verdict]
    lines += [f"Reproduce it with: {command}", ""]
    verdicts = sorted(outcome["releases"].items(), key=lambda pair: Version(pair[0]))
    if markdown:
        lines += [
            "| release | compared with the first |",
            "|---|---|",
            *(f"| {name} | {each} |" for name, each in verdicts),
        ]
    else:
        lines += [f"  {name:10} {each}" for name, each in verdicts]
    if outcome.get("comparison"):
        comparison = {**outcome["comparison"], "title": f"{outcome['last_good']} → {outcome['first_bad']}"}
        text = upgrade.report(comparison, markdown=markdown)
        lines += ["", f"#{text}" if markdown else text]
    return "\n".join(lines).rstrip() + "\n"


def _finish(outcome: dict[str, Any], path: Path, text: str) -> dict[str, Any]:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return {**outcome, "report": str(path)}


def make_environment(release: Release, options: Options) -> Path:
    """The Python of an environment like this one except for the release; kept as long as this one's packages stay.

    Raises:
        EnvironmentGap: the release cannot be installed.
    """
    beneath = json.dumps([sys.prefix, describe()["python"], describe()["packages"]])
    home = (options.home / hashlib.sha256(beneath.encode()).hexdigest()[:8]).resolve()
    if not (home / release.name / "ready").exists():
        options.console.say(f"{release.package} {release.version}: is installed")
    try:
        return release.environment(home)
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or str(error)).strip().splitlines() or [str(error)]
        text = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1])
        raise EnvironmentGap(f"{release.package}=={release.version}: cannot be installed: {text[:300]}") from error


def run_suite(python: Path | str, place: Path, label: str, options: Options) -> Run:
    """Run the selected cells part by part; skip parts that have a result.

    Args:
        python: the interpreter of the environment.
        place: the directory of records and logs.
        label: prefix of the lines of progress.
        options: what to run.

    Raises:
        UsageError: pytest refuses the selection, or it selects nothing.
        BrokenSuite: pytest ends in another way than with passed and failed tests.
    """
    place.mkdir(parents=True, exist_ok=True)
    parts = _plan(python, place, options)
    started, run_now = time.perf_counter(), 0
    for number in range(1, parts + 1):
        path = place / f"{number}-of-{parts}.jsonl"
        if path.exists():
            options.console.say(f"{label}: part {number} of {parts}: kept")
            continue
        options.console.say(f"{label}: part {number} of {parts}: runs")
        running = path.with_suffix(".running")
        arguments = [f"--records={running}", f"--shard={number}/{parts}", "-n", options.workers, *options.arguments]
        status, log = _pytest(python, place / "log.txt", arguments)
        # A part without a test has a records file too, an empty one.
        if not (status in (*_COMPLETE, _NOTHING) and running.exists()):
            raise _failure(status, log, place / "log.txt", options)
        running.replace(path)
        run_now += 1
        options.console.say(_progress(label, path, number, parts, (time.perf_counter() - started) / run_now))
    shards = {path: records.load(path) for path in (place / f"{n}-of-{parts}.jsonl" for n in range(1, parts + 1))}
    environment, lines = merge.merge_shards(shards)
    records.write(place / "records.jsonl", environment, lines)
    if not lines:
        raise UsageError(f"{shlex.join(options.arguments)}: selects no cell; `parity matrix` lists them")
    return environment, lines


def _progress(label: str, path: Path, number: int, parts: int, seconds: float) -> str:
    lines = records.load(path)[1]
    red = sum(line["status"] in RED for line in lines)
    left = f", about {(parts - number) * seconds / 60:.0f} min left" if number < parts else ""
    return f"{label}: part {number} of {parts}: {count_text(len(lines), 'check')}, {red} red{left}"


def _plan(python: Path | str, place: Path, options: Options) -> int:
    """The number of parts; delete a plan for other code or another selection, and its results."""
    path = place / "plan.json"
    plan: dict[str, Any] = {
        "code": environments.code(),
        "arguments": [*options.arguments],
        "packages": describe()["packages"],
    }
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        if {name: kept.get(name) for name in plan} == plan:
            return int(kept["parts"])
        options.console.say(f"{place}: belongs to other code or another selection, and is run again")
        for old in place.glob("*-of-*.jsonl"):
            old.unlink()
    status, log = _pytest(python, place / "log.txt", ["--collect-only", *options.arguments])
    match = _COLLECTED.search(log)
    if status != 0 or match is None:
        raise _failure(status, log, place / "log.txt", options)
    plan["parts"] = -(-int(match[1]) // TESTS_OF_A_PART)
    path.write_text(json.dumps(plan), encoding="utf-8")
    return int(plan["parts"])


def _pytest(python: Path | str, log: Path, arguments: Sequence[str]) -> tuple[int, str]:
    """Run the suite; returns the exit status and the output, which is in the log too."""
    with log.open("w", encoding="utf-8") as stream:
        command = [python, "-m", "pytest", *_SUITE, *arguments]
        status = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT).returncode
    return status, log.read_text(encoding="utf-8", errors="replace")


def _failure(status: int, text: str, log: Path, options: Options) -> ParityError:
    """The error for a run of pytest that did not complete."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [
        line.removeprefix("ERROR: ").removeprefix("E  ").strip()
        for line in lines
        if line.startswith(("ERROR: ", "E  "))
    ]
    reason = told[-1] if told else (lines or ["nothing was said"])[-1]
    if status == _NOTHING:
        return UsageError(f"{shlex.join(options.arguments)}: selects no cell; `parity matrix` lists them")
    if status == _USAGE:
        return UsageError(f"pytest refuses {shlex.join(options.arguments)}: {reason[:300]}")
    return BrokenSuite(f"the suite ends with exit status {status} of pytest: {reason[:300]}; see {log}")


def _present_version(package: str) -> str:
    version = version_of(package)
    if version is None:
        raise UsageError(f"{package}: is not installed here; run the command in the environment that is upgraded")
    return version.partition("+")[0]


def _others(package: str) -> str:
    """The versions of the other deciding packages, which are the same in every run."""
    versions = {name: str(version).partition("+")[0] for name, version in describe()["packages"].items()}
    return ", ".join(f"{name} {versions[name]}" for name in baseline.DECIDING if name in versions and name != package)


def _present_run(place: Path, options: Options) -> Run:
    """The run of this environment: the given one, its baseline, or a new run."""
    environment = describe()
    if options.present:
        got, should = (baseline.environment_of(each) for each in (options.present[0], environment))
        if got != should:
            raise UsageError(f"records of {got}: should be of this environment, {should}")
        return options.present
    path = baseline.path_of(options.baselines, environment)
    if path.exists():
        options.console.say(f"this environment: {path}")
        known, lines = from_baseline(path)
        return {**environment, FIELD: known[FIELD]}, lines
    return run_suite(sys.executable, place / "before", "this environment", options)


def _require_listed(package: str, versions: Sequence[str], listed: Sequence[str] | None = None) -> None:
    listed = environments.list_releases(package) if listed is None else listed
    missing = [version for version in versions if Version(version) not in map(Version, listed)]
    if missing:
        newest = ", ".join([each for each in listed if not Version(each).is_prerelease][-5:])
        raise UsageError(f"{package}=={missing[0]}: the package index lists no such release; its newest are {newest}")


def _require_version(release: Release, run: Run) -> None:
    """Refuse a run whose environment has another release than requested."""
    got = run[0]["packages"].get(release.package, release.version)
    if Version(got or "0").public != Version(release.version).public:
        raise BrokenSuite(f"{release.package}: the environment has {got}, should have {release.version}")


def write_page(path: Path, old: Run, new: Run, options: Options) -> None:
    """Write the page of a run, compared with another; if a package for it is missing, print that.

    Args:
        path: of the page.
        old, new: the environment and the records of each run.
        options: have the console.
    """
    from parity.registry import architectures
    from parity.reports.pages import page

    try:
        kinds = {each.name: each.kind for each in architectures()}
        page.write(path, *new, replace(page.against(old, new), kinds=kinds))
    except EnvironmentGap as gap:
        options.console.say(f"no page: {gap}")
