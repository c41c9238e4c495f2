"""Many machines: the CI workflow uses valid options of the commands, and one run spans several interpreters."""

import configparser
import fnmatch
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import yaml

from parity import records
from parity.fixtures.controls import specimens
from parity.reports import __main__ as command

ROOT = Path(__file__).parents[1]
WORKFLOW = ROOT / ".github" / "workflows" / "parity.yml"
PLUGINS = ("-p", "parity.fixtures.plugin", "-p", "parity.reports.recording.plugin", "-p", "no:cacheprovider")
# Values of the workflow's context, for shard 2 of 4.
CONTEXT = {"matrix.shard": "2", "strategy.job-total": "4"}


def steps(text):
    """The commands of each job of a workflow, with the values of its context filled in."""
    jobs = yaml.safe_load(text)["jobs"]
    filled = {
        name: [
            re.sub(r"\$\{\{ *([\w.-]+) *\}\}", lambda m: CONTEXT[m[1]], step["run"])
            for step in job["steps"]
            if "run" in step
        ]
        for name, job in jobs.items()
    }
    return jobs, filled


def faults(text):
    """The faults of a workflow."""
    jobs, commands = steps(text)
    problems = []
    shards = jobs["matrix"]["strategy"]["matrix"]["shard"]
    if shards != list(range(1, len(shards) + 1)):
        problems.append(f"shards {shards}")
    if jobs["gate"]["needs"] != "matrix" or not jobs["gate"]["if"].startswith("always()"):
        problems.append("the gate does not wait for all shards")
    (run,) = [line for line in commands["matrix"] if line.startswith("pytest")]
    if "--shard 2/4" not in run or "records-2.jsonl" not in run:
        problems.append(f"not a shard: {run}")
    actions = {}
    for line in commands["gate"]:
        if line.startswith("python -m parity.reports"):
            args = command.parser().parse_args(shlex.split(line.partition("|")[0])[3:])
            actions.update(
                dict.fromkeys([name for name in ("merge", "check") if getattr(args, name)] or ["page"], args)
            )
    if list(actions) != ["merge", "page", "check"]:
        return [*problems, f"the gate does {list(actions)}"]
    if not all(actions[name].records == [actions["merge"].output] for name in ("page", "check")):
        problems.append("page or check is not of the merged records")
    uploads = [step["with"] for step in jobs["matrix"]["steps"] if "upload-artifact" in step.get("uses", "")]
    downloads = [step["with"] for step in jobs["gate"]["steps"] if "download-artifact" in step.get("uses", "")]
    names = [re.sub(r"\$\{\{ *([\w.-]+) *\}\}", lambda m: CONTEXT[m[1]], upload["name"]) for upload in uploads]
    if not any(
        fnmatch.fnmatch(name, download["pattern"]) and download["path"] == "reports/out"
        for download in downloads
        for name in names
    ):
        problems.append("the gate does not fetch what the shards leave")
    if not any(
        fnmatch.fnmatch("reports/out/records-2.jsonl", path) for upload in uploads for path in upload["path"].split()
    ):
        problems.append("the shards do not leave their records")
    # GitHub sets `pipefail` only for a step that names bash as its shell.
    steps_of = [step for job in jobs.values() for step in job["steps"] if "|" in step.get("run", "").replace("||", "")]
    problems += [f"the status of a pipe is lost: {step['run']}" for step in steps_of if step.get("shell") != "bash"]
    return problems


def test_the_workflow_is_sound():
    """Shards 1 to N, each with its own records; then merge, page and check with valid options."""
    assert faults(WORKFLOW.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("[1, 2, 3, 4]", "[1, 2, 4]"), "shards"),
        (("/${{ strategy.job-total }}", "/3"), "not a shard"),
        (("    if: always() &&", "    if: success() &&"), "does not wait"),
        (("--check", "--accept"), "the gate does"),
        (("--check reports/out/records.jsonl", "--check reports/out/records-1.jsonl"), "not of the merged"),
        (("        shell: bash\n", ""), "status of a pipe"),
        (("pattern: shard-*", "pattern: records-*"), "does not fetch"),
        (("name: shard-$", "name: part-$"), "does not fetch"),
        (("uses: actions/download-artifact@v4", "uses: actions/cache@v4"), "does not fetch"),
        (("            reports/out/records-*.jsonl\n", ""), "do not leave"),
    ],
)
def test_a_faulty_workflow_is_seen(change, problem):
    """Wrong shards, total, gate, paths or exit status."""
    text = WORKFLOW.read_text(encoding="utf-8")
    assert change[0] in text
    (line,) = faults(text.replace(*change))
    assert line.startswith(problem) or problem in line


def test_what_pip_installs_today_is_a_lane_of_its_own():
    """Weekly, with the command in the README; it can fail, no job depends on it, and its failure shows."""
    workflow = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    lane = workflow["jobs"]["newest"]
    # YAML reads the key `on` as true.
    assert workflow[True]["schedule"]
    assert "tox -e newest" in [step.get("run") for step in lane["steps"]]
    assert not [step for step in [lane, *lane["steps"]] if "continue-on-error" in step]
    assert not [job for job in workflow["jobs"].values() if "newest" in (job.get("needs") or "")]
    tox = configparser.ConfigParser()
    tox.read(ROOT / "tox.ini")
    newest = tox["testenv:newest"]
    assert newest["constrain_package_deps"] == "false"
    assert (newest["set_env"], newest.get("deps", "")) == ("", "")
    assert [
        part for part in ("-m smoke", "test_command_onnx.py", "parity.fixtures.minilm") if part in newest["commands"]
    ]


def test_the_gate_needs_neither_torch_nor_a_model(tmp_path):
    """Merge, page and check import neither: the workflow's gate does not install them."""
    for index in (1, 2):
        # Both shards have the same fingerprint of the division.
        shard = {"index": index, "of": 2, "whole": "a" * 16, "checks": 12 if index == 1 else 0}
        lines = specimens.run() if index == 1 else []
        records.write(tmp_path / f"records-{index}.jsonl", specimens.environment(shard=shard), lines)
    program = "import sys; sys.modules.update(dict.fromkeys({absent!r})); from parity.cli import run; run()"
    absent = ["torch", "transformers", "onnx", "onnxruntime"]
    for arguments in (
        ["--merge", "records-1.jsonl", "records-2.jsonl", "--output", "records.jsonl"],
        ["records.jsonl", "--output", "report.html"],
        ["--accept", "records.jsonl"],
        ["--check", "records.jsonl"],
    ):
        run = [sys.executable, "-c", program.format(absent=absent), "reports", *arguments]
        process = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True)
        assert process.returncode == 0, process.stderr
    # The control: a module that needs torch cannot be imported.
    needing = "import sys; sys.modules.update(dict.fromkeys({absent!r})); import parity.traceable"
    process = subprocess.run([sys.executable, "-c", needing.format(absent=absent)], capture_output=True, text=True)
    assert "import of torch halted" in process.stderr


def test_one_run_spans_two_interpreters(pytester):
    """xdist's remote workers, here in two local interpreters: each check runs once and all are in one file."""
    other = pytester.path / "other"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", other], check=True)
    (site,) = other.glob("lib/python*/site-packages")
    # Through `addsitedir`, so that an editable installation in it works too.
    (site / "dependencies.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    pytester.makepyfile(
        test_suite="""
        import os
        import sys

        import pytest

        @pytest.mark.cells(features=("default",), opsets=(11, 12, 13))
        def test_where(cell, measurements):
            measurements(validated_at=[{"sizes": {}, "padding": f"{sys.prefix} {os.getcwd()}"}])
        """
    )
    # With a working directory of its own, the other interpreter acts like one on another host.
    there = pytester.path.parent / f"{pytester.path.name}-there"
    there.mkdir()
    shutil.copy(pytester.path / "test_suite.py", there)
    nodes = [f"--tx=popen//python={sys.executable}", f"--tx=popen//python={other / 'bin' / 'python'}//chdir={there}"]
    chosen = ("-k", "[b or [d or [v", "--records", "out.jsonl")
    result = pytester.runpytest_subprocess(*PLUGINS, "--dist=load", *nodes, *chosen)
    environment, lines = records.read(pytester.path / "out.jsonl")
    result.assert_outcomes(passed=len(lines))
    assert len({line["id"] for line in lines}) == len(lines) > 20
    where = {line["sizes"][0]["padding"] for line in lines}
    assert where == {f"{sys.prefix} {pytester.path}", f"{other} {there}"}
    assert len(environment["workers"]) == 2


# Replaces each command of `.ci/run`: logs its call, and fails if it is the chosen one.
STUB = """#!/bin/sh
name=$(basename "$0")
echo "$name $*" >> "$CALLS"
case "$name $*" in "$FAILING"*) exit 1 ;; esac
case $name in
    python3) mkdir -p "$3/bin" && : > "$3/bin/activate" ;;
    timeout) shift && exec "$@" ;;
esac
"""
PARTS = (
    "pip install -e",
    "pytest",
    "pytest -n auto parity/tests",
    "python -m parity.reports.lanes.releases transformers-4.57",
    "pytest parity/tests/test_installation.py",
    "ruff check",
    "ruff format",
    "mypy",
    "python .ci/newcomer",
    "tox -e seed",
    "tox -e inf1",
)


def ci(directory, failing="nothing"):
    """Run `.ci/run` with a stub for each command; returns the exit status and the calls."""
    python, others = ("python3", "python", "pip", "python3.10"), ("timeout", "tox", "pyenv", "chromium")
    for name in (*python, "pytest", "ruff", "mypy", *others):
        (directory / name).write_text(STUB)
        (directory / name).chmod(0o755)
    calls = directory / "calls"
    calls.write_text("")
    environment = {"PATH": f"{directory}:/usr/bin:/bin", "CALLS": str(calls), "FAILING": failing, "PYTHON": "python3"}
    done = subprocess.run(["bash", ROOT / ".ci" / "run"], env=environment, capture_output=True, text=True)
    return done.returncode, calls.read_text().splitlines()


def test_ci_runs_the_suite_the_linter_and_the_other_environments(tmp_path):
    """In this order; it succeeds if all of them do."""
    status, calls = ci(tmp_path)
    assert status == 0
    first = [next(at for at, call in enumerate(calls) if call.startswith(part)) for part in PARTS]
    assert first == sorted(first)


@pytest.mark.parametrize("part", PARTS)
def test_ci_fails_with_each_of_its_parts(part, tmp_path):
    """Later commands hide no failure."""
    status, calls = ci(tmp_path, part)
    assert status != 0
    assert calls[-1].startswith(part)


def test_tox_runs_matrix_page_and_check_in_one_go():
    """The gate's commands use one records file; the check runs even if pytest fails, but never on old records."""
    tox = configparser.ConfigParser()
    tox.read(ROOT / "tox.ini")
    gate = tox["testenv:gate"]
    run, page, check = gate["commands"].strip().splitlines()
    assert "--junit-xml=" in run
    (path,) = re.findall(r"--records=(\S+)", run)
    assert f"'{path}').unlink(" in gate["commands_pre"]
    made, checked = (command.parser().parse_args(shlex.split(line)[3:]) for line in (page, check))
    assert [str(each) for each in (*made.records, *checked.records)] == [path, path]
    assert checked.check
    assert gate.getboolean("ignore_errors")
