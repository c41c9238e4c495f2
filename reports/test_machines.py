"""Many machines: the CI workflow says what the commands take, and one run spans several interpreters."""

import configparser
import re
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import yaml

from parity.reports import __main__ as command
from parity.reports import records

ROOT = Path(__file__).parents[1]
WORKFLOW = ROOT / ".github" / "workflows" / "parity.yml"
PLUGINS = ("-p", "parity.fixtures.plugin", "-p", "parity.reports.plugin", "-p", "no:cacheprovider")
# What a job knows of its place in the matrix, for shard 2 of 4.
CONTEXT = {"matrix.shard": "2", "strategy.job-total": "4"}


def steps(text):
    """The commands of each job of a workflow, with the values of its context."""
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
    """What of a workflow would not work."""
    jobs, commands = steps(text)
    found = []
    shards = jobs["matrix"]["strategy"]["matrix"]["shard"]
    if shards != list(range(1, len(shards) + 1)):
        found.append(f"shards {shards}")
    if jobs["gate"]["needs"] != "matrix" or jobs["gate"]["if"] != "always()":
        found.append("the gate does not wait for all shards")
    (run,) = [line for line in commands["matrix"] if line.startswith("pytest")]
    if "--shard 2/4" not in run or "records-2.jsonl" not in run:
        found.append(f"not a shard: {run}")
    actions = []
    for line in commands["gate"]:
        if line.startswith("python -m parity.reports"):
            args = command.parser().parse_args(shlex.split(line.partition("|")[0])[3:])
            actions += [name for name in ("merge", "check") if getattr(args, name)] or ["page"]
    if actions != ["merge", "page", "check"]:
        found.append(f"the gate does {actions}")
    return found


def test_the_workflow_is_sound():
    """Shards 1 to N, each with records of its own; then merge, page and check with options that there are."""
    assert faults(WORKFLOW.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("[1, 2, 3, 4]", "[1, 2, 4]"), "shards"),
        (("/${{ strategy.job-total }}", "/3"), "not a shard"),
        (("    if: always()\n    runs-on", "    if: success()\n    runs-on"), "does not wait"),
        (("--check", "--accept"), "the gate does"),
    ],
)
def test_a_faulty_workflow_is_seen(change, told):
    """A gap in the shards, a wrong total, a gate that is left out, an accepting gate."""
    text = WORKFLOW.read_text(encoding="utf-8")
    assert change[0] in text
    (found,) = faults(text.replace(*change))
    assert found.startswith(told) or told in found


def test_one_run_spans_two_interpreters(pytester):
    """xdist's own remote workers, here in two local interpreters: each check runs once, on record in one file."""
    other = pytester.path / "other"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", other], check=True)
    (site,) = other.glob("lib/python*/site-packages")
    # As a directory of its own kind, so that an editable installation in it works too.
    (site / "dependencies.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    pytester.makepyfile(
        test_suite="""
        import sys

        import pytest

        @pytest.mark.cells(features=("default",), opsets=(11, 12, 13))
        def test_where(cell, figures):
            figures(validated_at=[{"prefix": sys.prefix}])
        """
    )
    nodes = [f"--tx=popen//python={python}" for python in (sys.executable, other / "bin" / "python")]
    chosen = ("-k", "[b or [d or [v", "--records", "out.jsonl")
    result = pytester.runpytest_subprocess(*PLUGINS, "--dist=load", *nodes, *chosen)
    environment, lines = records.read(pytester.path / "out.jsonl")
    result.assert_outcomes(passed=len(lines))
    assert len({line["id"] for line in lines}) == len(lines) > 20
    assert {line["sizes"][0]["prefix"] for line in lines} == {sys.prefix, str(other)}
    assert len(environment["workers"]) == 2


def test_tox_runs_matrix_page_and_check_in_one_go():
    """The gate's commands use one records file; the check is made even when pytest fails, never of old records."""
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
