"""`python -m parity.reports.lanes.releases`: smoke tests and commands with each release that the project promises.

The environment of each release, on top of the packages of this one, is kept, and so are the results: an interrupted
run continues. The tables show the result for each kind of architecture and each feature, and the causes of failures.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from parity import interruptions, records
from parity.console import run_guarded
from parity.reports.gate.changes import WORST
from parity.reports.lanes.environments import HOME, KEPT, Release, code
from parity.reports.pages.support import README, ROOT, between_marks

TABLE = ROOT / "reports" / "results" / "releases.json"
# The last patch of every minor release; a new release is one more line.
RELEASES = {
    "transformers": (
        *("4.46.3", "4.47.1", "4.48.3", "4.49.0", "4.50.3", "4.51.3", "4.52.4", "4.53.3", "4.54.1", "4.55.4", "4.56.2"),
        *("4.57.6", "5.0.0", "5.1.0", "5.2.0", "5.3.0", "5.4.0", "5.5.4", "5.6.2", "5.7.0", "5.8.1", "5.9.0", "5.10.4"),
        *("5.11.0", "5.12.1", "5.13.1", "5.14.1", "5.15.1", "5.16.1", "5.17.0", "5.18.0", "5.19.0", "5.20.2", "5.21.1"),
        *("5.22.2", "5.23.0", "5.24.0"),
    ),
    "onnxruntime": (
        *("1.18.1", "1.19.2", "1.20.1", "1.21.1", "1.22.1", "1.23.2", "1.24.4", "1.25.1", "1.26.0", "1.27.0", "1.28.0"),
        *("1.29.0", "1.30.0", "1.31.1", "1.32.0"),
    ),
    "onnx": ("1.16.2", "1.17.0", "1.18.0", "1.19.1", "1.20.1", "1.21.0", "1.22.0", "1.23.2"),
    "torch": ("2.8.0", "2.9.1", "2.10.0", "2.11.0", "2.12.1", "2.13.0", "2.14.1", "2.15.0"),
}
# Releases with which smoke failed before `parity/releases.py` knew them. They run the whole matrix at one opset:
# several failed in ways that smoke does not show.
MATRIX = (
    *("4.49.0", "4.53.3", "4.54.1", "4.55.4", "4.56.2", "4.57.6", "5.0.0", "5.1.0", "5.2.0", "5.3.0", "5.4.0", "5.5.4"),
    *("5.6.2", "5.7.0", "5.8.1", "5.9.0", "5.10.4", "5.11.0", "5.12.1", "5.13.1", "5.14.1", "5.15.1", "5.24.0"),
)
COMMANDS = (
    ("bert", "default"),
    ("gpt2", "causal-lm-with-past"),
    ("llama", "causal-lm-with-past"),
    ("t5", "seq2seq-lm-with-past"),
    ("whisper", "speech2seq-lm-with-past"),
    ("clip", "default"),
    ("vit", "image-classification"),
)
# Builds of torch for CUDA take 6 GB each: their environments are deleted after the run.
_KEPT = ("transformers", "onnxruntime", "onnx")
# Runs the command on a checkpoint of each model, with its own validation; prints a line of JSON for each.
_COMMANDS = """
import contextlib, io, json, pathlib, sys, tempfile
from parity.fixtures.checkpoints import save_checkpoint
from parity.onnx.__main__ import main
for model_type, feature in json.loads(sys.argv[1]):
    told = io.StringIO()
    with tempfile.TemporaryDirectory() as home, contextlib.redirect_stderr(told), contextlib.redirect_stdout(told):
        try:
            save_checkpoint(pathlib.Path(home, "model"), model_type, feature)
            status = main(["-m", home + "/model", "--feature", feature, home + "/onnx"])
        except Exception as error:
            status = 1
            told.write(f"{type(error).__name__}: {error}")
    last = (told.getvalue().strip().splitlines() or [""])[-1].replace(home, "")
    found = {"architecture": model_type, "feature": feature, "status": status, "error": last[:300] if status else ""}
    print("parity " + json.dumps(found))
"""
_GREEN = ("passed", "xfailed")


def selection(words: Sequence[str]) -> list[Release]:
    """The releases whose version, or package and version, starts with one of the words; all of them without words.

    `newest` stands for the newest five of transformers.
    """
    every = [Release(package, version) for package, versions in RELEASES.items() for version in versions]
    newest = [Release("transformers", version) for version in RELEASES["transformers"][-5:]]

    def matches(release: Release) -> bool:
        return not words or any(
            release.name.startswith(word)
            or release.version.startswith(word)
            or (word == "newest" and release in newest)
            for word in words
        )

    return [release for release in every if matches(release)]


def steps_of(release: Release, *, matrix: bool = True) -> list[str]:
    """The steps of a release, in order.

    Args:
        release: the release.
        matrix: whether releases in `MATRIX` run the whole matrix at one opset.
    """
    different = matrix and release.package == "transformers" and release.version in MATRIX
    return ["installing", "smoke", *["matrix"] * different, "commands"]


def run_step(release: Release, home: Path, result: dict[str, Any], step: str) -> None:
    """Run one step of a release and put its outcome and its seconds into `result`.

    If the release cannot be installed, `result` gets a `gap`: further steps are useless.

    Args:
        release: the release.
        home: directory of the environments.
        result: of the release, changed in place.
        step: one of `steps_of`.
    """
    started = time.perf_counter()
    python = home / release.name / "bin" / "python"
    if step == "installing":
        result[step] = {}
        try:
            release.environment(home)
        except subprocess.CalledProcessError as error:
            result["gap"] = (error.stderr or str(error)).strip().splitlines()[-1][:300]
    elif step == "commands":
        process = subprocess.run(
            [python, "-c", _COMMANDS, json.dumps(COMMANDS)], cwd=ROOT, capture_output=True, text=True
        )
        outcomes = [line.removeprefix("parity ") for line in process.stdout.splitlines() if line.startswith("parity ")]
        result[step] = [json.loads(line) for line in outcomes]
        if len(outcomes) < len(COMMANDS):
            result["broken"] = (process.stderr.strip().splitlines() or [f"exit status {process.returncode}"])[-1][:300]
        if release.package not in _KEPT:
            shutil.rmtree(home / release.name / "lib")
            (home / release.name / "ready").unlink()
    else:
        result[step] = _tests(python, home / release.name / step, _SELECTED[step])
    result["seconds"] = result.get("seconds", 0) + round(time.perf_counter() - started)


_SELECTED = {"smoke": ["-m", "smoke"], "matrix": ["architectures", "-k", "onnx17"]}


def _tests(python: Path, stem: Path, arguments: Sequence[str]) -> dict[str, Any]:
    """Run pytest; returns its exit status, the number of checks by status, and the cells by kind and feature."""
    path = stem.with_suffix(".jsonl")
    path.unlink(missing_ok=True)
    options = ["-n", "auto", "-q", f"--records={path}", "-p", "no:cacheprovider", *arguments]
    with stem.with_suffix(".log").open("w", encoding="utf-8") as log:
        status = subprocess.run(
            [python, "-m", "pytest", *options], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
        ).returncode
    lines = records.read(path)[1] if path.exists() else []
    counts = Counter(line["status"] for line in lines)
    return {"status": status, "checks": dict(sorted(counts.items())), "cells": cells_of(lines)}


def cells_of(lines: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Kind → feature → number of its architectures, the worst status, and the causes of failures.

    Skipped records are ignored: the release, or this machine, lacks the feature.
    """
    from parity.registry import architecture

    cells: dict[str, dict[str, dict[str, Any]]] = {}
    names: dict[tuple[str, str], set[str]] = {}
    for line in lines:
        if line["status"] == "skipped":
            continue
        kind, feature = architecture(line["architecture"]).kind_of(line["feature"]), line["feature"]
        cell = cells.setdefault(kind, {}).setdefault(feature, {"architectures": 0, "status": "passed", "causes": []})
        names.setdefault((kind, feature), set()).add(line["architecture"])
        cell["architectures"] = len(names[kind, feature])
        cell["status"] = min(cell["status"], line["status"], key=WORST.index)
        if line["status"] != "passed":
            first = (line["error"] or "").strip().splitlines() or [""]
            cause = f"{line['architecture']} {line['check']}: {first[0][:200]}"
            if cause not in cell["causes"]:
                cell["causes"].append(cause)
    return {kind: dict(sorted(features.items())) for kind, features in sorted(cells.items())}


def causes(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Everything that is not green, as (status, one line)."""
    return _of_cells(result) + _of_the_rest(result)


def _of_cells(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (cell["status"], f"{run}, {feature}: {cause}")
        for run in ("smoke", "matrix")
        for features in result.get(run, {}).get("cells", {}).values()
        for feature, cell in features.items()
        for cause in cell["causes"]
    ]


def _of_the_rest(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Failures outside cells: a release that cannot be installed, a run without a check, the commands."""
    others = [("error", f"cannot be had: {result['gap']}")] if "gap" in result else []
    if not any(status not in _GREEN for status, _ in _of_cells(result)):
        for run in ("smoke", "matrix"):
            if status := result.get(run, {}).get("status", 0):
                others.append(("error", f"{run}: pytest ended with exit status {status}"))
    for each in result.get("commands", ()):
        if each["status"]:
            cause = f"command, {each['architecture']} {each['feature']}: exit status {each['status']}: {each['error']}"
            others.append(("failed", cause))
    return others + ([("error", f"commands: {result['broken']}")] if "broken" in result else [])


def is_green(result: Mapping[str, Any]) -> bool:
    """Whether smoke, the matrix if it was run, and all commands were green, apart from declared deviations."""
    complete = bool(result.get("smoke", {}).get("cells")) and len(result.get("commands", ())) == len(COMMANDS)
    return complete and all(status in _GREEN for status, _ in causes(result))


def page(results: Sequence[Mapping[str, Any]]) -> str:
    """The tables as Markdown: for each package a row a release, then a line for each cause of a failure."""
    columns = sorted(
        {
            (kind, feature)
            for result in results
            for kind, features in result.get("smoke", {}).get("cells", {}).items()
            for feature in features
        }
    )
    heads = ["release", *(f"{kind}: {feature}" for kind, feature in columns), "commands", "matrix at 17", "seconds"]
    lines = ["# Releases", "", "`tox -e releases` has run smoke and the commands with these. ✓ is green, ✗ red, and –"]
    lines += ["is not tried. A number in brackets is a cause below; what is declared has one and is green.", ""]
    notes: dict[str, int] = {}
    for package in RELEASES:
        rows = [result for result in results if result["package"] == package]
        if not rows:
            continue
        lines += [f"## {package}", "", f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
        for result in rows:
            cells = result.get("smoke", {}).get("cells", {})
            smoke = [_mark(cells.get(kind, {}).get(feature), "smoke", feature, notes) for kind, feature in columns]
            right = sum(not each["status"] for each in result.get("commands", ()))
            commands = f"{right} of {len(COMMANDS)}" if "commands" in result else "–"
            lines.append(
                f"| {result['version']} | {' | '.join(smoke)} | {commands} | {_matrix(result, notes)}"
                f" | {result['seconds']} |"
            )
        lines.append("")
    others = [(result, cause) for result in results for _, cause in _of_the_rest(result)]
    lines += [f"- {result['package']} {result['version']}: {cause}" for result, cause in others]
    lines += [f"{number}. {cause}" for cause, number in notes.items()]
    return "\n".join(lines).rstrip() + "\n"


def _mark(cell: Mapping[str, Any] | None, run: str, feature: str, notes: dict[str, int]) -> str:
    """The mark of a cell with the numbers of its causes; new causes are added to `notes`."""
    if cell is None:
        return "–"
    numbers = [notes.setdefault(f"{run}, {feature}: {cause}", len(notes) + 1) for cause in cell["causes"]]
    return ("✓" if cell["status"] in _GREEN else "✗") + "".join(f" [{number}]" for number in numbers)


def _matrix(result: Mapping[str, Any], notes: dict[str, int]) -> str:
    """How many pairs of architecture and feature are green, and the causes of the others."""
    if "matrix" not in result:
        return "–"
    cells = [(feature, cell) for features in result["matrix"]["cells"].values() for feature, cell in features.items()]
    count = sum(cell["architectures"] for _, cell in cells)
    marks = [_mark(cell, "matrix", feature, notes) for feature, cell in cells if cell["causes"]]
    red = any(mark.startswith("✗") for mark in marks) or result["matrix"]["status"]
    return " ".join([f"{'✗' if red else '✓'} {count}", *(mark[2:] for mark in marks)])


def summary(results: Sequence[Mapping[str, Any]]) -> str:
    """The table of the README: package, first and last release, number of releases, and the ones not green."""
    lines = ["| package | releases | tried | not green |", "|---|---|---|---|"]
    for package in RELEASES:
        rows = [result for result in results if result["package"] == package]
        if rows:
            bad = ", ".join(result["version"] for result in rows if not is_green(result)) or "none"
            lines.append(f"| {package} | {rows[0]['version']} to {rows[-1]['version']} | {len(rows)} | {bad} |")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status, 1 if a release is not green."""
    parser = argparse.ArgumentParser(
        "python -m parity.reports.lanes.releases",
        description="Smoke and the commands with each release that is promised.",
    )
    parser.add_argument(
        "which", nargs="*", help="how names or versions begin, such as 5.2 or onnx-; newest: five (default: all)"
    )
    parser.add_argument("--again", action="store_true", help="also those that have been tried")
    parser.add_argument("--without-matrix", action="store_true", help="smoke and the commands alone")
    parser.add_argument("--home", type=Path, default=HOME, help="where environments are kept (default: %(default)s)")
    args = parser.parse_args(argv)
    if not selection(args.which):
        parser.error(f"no release begins with {' or '.join(args.which)}")
    return run_guarded(parser.prog, lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    interruptions.keep(KEPT)
    home, releases, now = args.home.resolve(), selection(args.which), code()
    results, started = [], time.perf_counter()
    for number, release in enumerate(releases, 1):
        path, place = home / release.name / "result.json", f"{number}/{len(releases)} {release.name}"
        result: dict[str, Any] = {"package": release.package, "version": release.version, "code": now}
        if path.exists() and not args.again:
            result = json.loads(path.read_text(encoding="utf-8"))
        missing = [step for step in steps_of(release, matrix=not args.without_matrix) if step not in result]
        for step in missing:
            if "gap" not in result:
                print(f"{place}: {step}", flush=True)
                run_step(release, home, result, step)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        results.append(result)
        line = f"{place}: {'green' if is_green(result) else 'red'}, {result['seconds']} s"
        line += "" if missing else ", kept"
        line += "" if result["code"] == now else " of other code: --again tries it again"
        print(line, flush=True)
        for status, cause in causes(result):
            print(f"    {status}: {cause}", flush=True)
    print(f"{sum(map(is_green, results))} of {len(results)} green, {time.perf_counter() - started:.0f} s")
    if len(releases) == len(selection(())):
        TABLE.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        TABLE.with_suffix(".md").write_text(page(results), encoding="utf-8")
        text = README.read_text(encoding="utf-8")
        README.write_text(between_marks(text, summary(results), "releases"), encoding="utf-8")
    return 0 if all(map(is_green, results)) else 1


if __name__ == "__main__":
    sys.exit(main())
