"""`python -m parity.reports.foreign DIRECTORY STEP…`: make files of other exporters, judge them, and write the table.

Each step continues where an earlier call stopped. Run `make optimum` in the environment of `tox -e peers`, and the
other steps in the default environment with onnxscript installed:

    python -m parity.reports.foreign DIRECTORY make optimum
    python -m parity.reports.foreign DIRECTORY make transformers torch-export torchscript optimiser quantiser float16
    python -m parity.reports.foreign DIRECTORY judge faults truth table
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from parity.reports.foreign.calibration import calibration_lines, parts_of
from parity.reports.foreign.sources import SOURCES, Case, cases

TABLE = Path(__file__).with_name("table.md")


class Work:
    """A directory with checkpoints, files, and the results of each step: one line of JSON for each file."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def checkpoint(self, case: Case) -> Path:
        return self.directory / f"checkpoints-{'peers' if case.source == 'optimum' else 'own'}" / case.checkpoint

    def file(self, case: Case) -> Path:
        directory = self.directory / "files" / case.name
        return directory if case.is_directory else directory / "model.onnx"

    def files(self) -> Iterator[tuple[Case, Path]]:
        """The cases whose files exist, with their paths."""
        for case in cases():
            if self.file(case).exists():
                yield case, self.file(case)

    def known(self, step: str) -> dict[str, dict[str, Any]]:
        """Name → the result of a step."""
        path = self.directory / f"{step}.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        return {each["name"]: each for each in map(json.loads, lines)}

    def add(self, step: str, entry: dict[str, Any]) -> None:
        """Print and keep the result of a step."""
        print(step, entry["name"], entry.get("status", entry.get("right", "")), flush=True)
        with (self.directory / f"{step}.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")


def make(work: Work, sources: list[str]) -> None:
    """Write the files that do not exist yet; if an exporter fails, print its error and leave the file out."""
    from parity.reports.foreign import sources as makers

    for case in cases():
        directory = work.file(case) if case.is_directory else work.file(case).parent
        if case.source not in sources or directory.exists():
            continue
        directory.parent.mkdir(parents=True, exist_ok=True)
        try:
            makers.make(case, makers.prepare(case, work.checkpoint(case).parent), directory)
        except Exception as error:
            shutil.rmtree(directory, ignore_errors=True)
            print(f"{case.name}: {type(error).__name__}: {' '.join(str(error).split())[:200]}", flush=True)


def judge(work: Work) -> None:
    """Run `parity check` on each file and keep the result."""
    from parity.reports.foreign.judging import judge

    known = work.known("judge")
    for case, file in work.files():
        if case.name not in known:
            work.add("judge", {"name": case.name, **judge(work.checkpoint(case), file)})


def faults(work: Work) -> None:
    """Run `parity check` on a copy of each file with each of its faults, and keep the result."""
    from parity.reports.foreign.faults import faults_of
    from parity.reports.foreign.judging import judge

    known = work.known("faults")
    for case, file in work.files():
        for name, spoil in faults_of(case).items():
            if f"{case.name}: {name}" not in known:
                target = _spoil(case, file, work.directory / "spoiled", (name, spoil))
                work.add("faults", {"name": f"{case.name}: {name}", **judge(work.checkpoint(case), target)})


def _spoil(case: Case, file: Path, place: Path, fault: tuple[str, Any]) -> Path:
    """The path of a copy, of a file or of a directory of files, with a fault."""
    import onnx

    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    own = target = place / "model.onnx"
    if case.is_directory:
        shutil.copytree(file, place / "files")
        target = place / "files"
        file = own = target / f"{fault[0].split()[0]}.onnx"
    model = onnx.load(str(file))
    fault[1](model)
    onnx.save(model, str(own))
    return target


def truth(work: Work) -> None:
    """Find out which files are right, with a script that shares no code with the judge, in its own process."""
    known = work.known("truth")
    jobs = []
    for case, file in work.files():
        kinds = {"float16": "float16", "quantiser": case.variant}
        job = {"name": case.name, "checkpoint": str(work.checkpoint(case)), "file": str(file)}
        if case.name not in known:
            jobs.append({**job, "feature": case.feature, "kind": kinds.get(case.source, "float32")})
    script = Path(__file__).with_name("truth.py")
    text = "".join(json.dumps(job) + "\n" for job in jobs)
    process = subprocess.run([sys.executable, str(script)], input=text, capture_output=True, text=True, check=True)
    for line in process.stdout.splitlines():
        if line.startswith("{"):
            work.add("truth", json.loads(line))


def table(work: Work) -> None:
    """Write the table."""
    verdicts, facts, spoiled = (work.known(step) for step in ("judge", "truth", "faults"))
    rows: list[str] = []
    counts: Counter[str] = Counter()
    comparisons = alarms = 0
    for case, _ in work.files():
        verdict, fact = verdicts.get(case.name), facts.get(case.name)
        if verdict is None or fact is None or fact["right"] is None:
            continue
        passed, right = verdict["status"] == 0, fact["right"]
        parts = parts_of(verdict)
        ratios = [each["ratio"] for part in parts for each in part["outputs"].values() if "ratio" in each]
        if right:
            comparisons += sum(len(part["validated_at"]) * len(part["outputs"]) for part in parts)
            alarms += not passed
        counts["right" if passed == right else "wrong"] += 1
        counts["unusable"] += verdict["status"] == 2
        shown = "" if not ratios else f"{max(ratios):.2f}" if passed else ""
        what = "passed" if passed else verdict["error"].split(";")[0][:90]
        drift = max((each["relative"] for each in verdict["result"].get("drift", {}).values()), default=None)
        rows.append(
            f"| {case.source} | {case.architecture} {case.feature} | {case.variant} |"
            f" {verdict['result'].get('precision', 'float32')} | {what} | {'right' if right else 'wrong'} |"
            f" {shown} | {'' if drift is None else f'{drift:.2g}'} |"
        )
    sources = Counter(row.split("|")[1].strip() for row in rows)
    rejected = [name for name, each in spoiled.items() if each["status"] == 1]
    let_through = sorted({*spoiled} - {*rejected})
    lines = [
        "# Files of other exporters, judged",
        "",
        "Written by `python -m parity.reports.foreign` from tiny models with random weights. *truth* says whether a"
        " file is right, by `truth.py`, which shares no code with the judge: it compares the file with torch in"
        " float64, at tokens that are not padding.",
        "",
        f"{len(rows)} files ({', '.join(f'{source} {count}' for source, count in sources.items())}) of"
        f" {len({row.split('|')[2].split()[0] for row in rows})} architectures: {counts['right']} judged right,"
        f" {counts['wrong']} wrong, {counts['unusable']} without a verdict. {comparisons:,} healthy comparisons (an"
        f" output at an input), {alarms} alarms. {len(spoiled)} faults, {len(rejected)} rejected"
        + (f"; let through: {', '.join(let_through)}." if let_through else "."),
        "",
        "Out of scope is a fault of the activations that is smaller than the drift of its precision: weights and graph"
        " are judged exactly, but integer activations only by the size of their error.",
        "",
        "| source | model | variant | precision | verdict | truth | largest ratio | drift |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        "## Faults",
        "",
        "| file: fault | verdict |",
        "|---|---|",
        *(f"| {name} | {each['error'].split(';')[0][:110] or 'passed'} |" for name, each in spoiled.items()),
        "",
        *calibration_lines([(case, verdicts[case.name]) for case, _ in work.files() if case.name in verdicts], spoiled),
    ]
    TABLE.write_text("\n".join(lines).replace(str(work.directory), "…"), encoding="utf-8")
    print("\n".join(lines[4:5]))


def main(argv: list[str] | None = None) -> int:
    """Run the steps."""
    parser = argparse.ArgumentParser("python -m parity.reports.foreign", description=__doc__)
    parser.add_argument("directory", type=Path, help="directory for the files and the results")
    parser.add_argument(
        "steps", nargs="+", help=f"make and its sources ({', '.join(SOURCES)}), or some of judge, faults, truth, table"
    )
    args = parser.parse_args(argv)
    work = Work(args.directory)
    if args.steps[0] == "make":
        make(work, args.steps[1:])
        return 0
    for step in args.steps:
        {"judge": judge, "faults": faults, "truth": truth, "table": table}[step](work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
