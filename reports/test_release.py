"""A new release breaks many cells: they have one cause, need one declaration, and turn red once it is fixed."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from parity import records

ROOT = Path(__file__).parents[1]
BASELINE = "transformers-5.23.0-torch-2.13.0-onnxruntime-1.32.0.csv"
ARCHITECTURES = ("gpt2", "gpt-neo", "t5")
CELLS = {
    f"{name}-{feature}-with-past-onnx17"
    for name, other in (("gpt2", "causal-lm"), ("gpt-neo", "causal-lm"), ("t5", "seq2seq-lm"))
    for feature in ("default", other)
}
FILES = [str(ROOT / "architectures" / "conformance" / f"test_{name}.py") for name in ("contract", "parity")]
CHECKS = (
    "checker",
    "contract",
    "exported_alone",
    "loads_alone",
    "other_sizes",
    "traced_sizes",
    "verdict_of_the_commands",
    "weights",
)
# Two checks run only for the first feature with a past: the separate export and the separate load.
COUNT = len(CELLS) * (len(CHECKS) - 2) + len(ARCHITECTURES) * 2
# This cell must pass whatever happens to those with a past.
HEALTHY = "gpt2-default-onnx17"
SELECTION = f"onnx17 and (with-past or (test_contract and {HEALTHY}))"
MESSAGE = "forward() got an unexpected keyword argument"

# Upstream renames the caches of every model; the file of deviations is the one in this directory.
STUB = f"""
import os
from pathlib import Path

import parity.architectures.conformance
from parity import releases

own = releases.arguments_of


def arguments_of(model_class, inputs):
    arguments = own(model_class, inputs)
    if releases.PAST in inputs:
        name = next(name for name in ("cache", "past_key_values") if name in arguments)
        raise TypeError(f"{{model_class.__name__}}.{MESSAGE} {{name!r}}")
    return arguments


if "MENDED" not in os.environ:
    releases.arguments_of = arguments_of
parity.architectures.conformance.__path__.insert(0, str(Path(__file__).parent))
"""
DECLARATIONS = {"by its scope": "", "by its message": re.escape(MESSAGE)}
DECLARED = f"""
from parity.declaration import Deviation

DEVIATIONS = (
    Deviation(
        raises="TypeError",
        message={{message!r}},
        reason="the argument of the caches has another name",
        issue="https://example.org/1",
        versions="transformers",
        checks={CHECKS},
        architectures={ARCHITECTURES},
        features=("default-with-past", "causal-lm-with-past", "seq2seq-lm-with-past"),
        opsets=(17,),
    ),
)
"""


class Engineer:
    """Runs the suite and its gate in a separate directory."""

    def __init__(self, directory):
        self.directory = directory
        (directory / "renamed.py").write_text(STUB)
        self.declare("DEVIATIONS = ()\n")
        (directory / "reports" / "baseline").mkdir(parents=True)
        shutil.copy(ROOT / "reports" / "baseline" / BASELINE, directory / "reports" / "baseline")

    def declare(self, text):
        (self.directory / "deviations.py").write_text(text)

    def call(self, *command, **more):
        """Run `python -m …`; returns the exit status and the lines of the output."""
        variables = {name: each for name, each in os.environ.items() if not name.startswith(("PYTEST", "HYPOTHESIS"))}
        path = os.pathsep.join(map(str, (self.directory, ROOT, *filter(None, sys.path))))
        environment = {**variables, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "80", **more}
        process = subprocess.run(
            [sys.executable, "-m", *command], cwd=self.directory, env=environment, capture_output=True, text=True
        )
        assert "Traceback" not in process.stderr, process.stderr
        return process.returncode, process.stdout.splitlines()

    def test(self, *options, **more):
        """Run the suite and read its records."""
        chosen = [f"--architecture={name}" for name in ARCHITECTURES]
        plugins = ("-p", "renamed", "-p", "no:cacheprovider", "-q", "--color=no")
        status, lines = self.call("pytest", *plugins, *FILES, *chosen, "-k", SELECTION, *options, **more)
        _, self.records = records.read(self.directory / "reports" / "out" / "records.jsonl")
        return status, lines

    def statuses(self):
        """Status → its cells."""
        return {
            status: {line["id"] for line in self.records if line["status"] == status}
            for status in {line["status"] for line in self.records}
        }


@pytest.fixture(scope="module")
def engineer(tmp_path_factory):
    """An environment whose nearest baseline is of transformers 5.23.0, with nothing declared."""
    return Engineer(tmp_path_factory.mktemp("release"))


@pytest.fixture(scope="module")
def red(engineer):
    """The broken run: exit status and output of pytest."""
    return engineer.test()


def require_one_cause(lines):
    """Three lines: count, pattern, exception; one whole message; the command of the smallest case."""
    (start,) = [number for number, line in enumerate(lines) if line.startswith("1. ")]
    assert lines[start].startswith(f"1. {COUNT} checks of {len(CELLS)} cells: *-with-past ({len(CELLS)}): TypeError")
    assert MESSAGE in lines[start + 1]
    assert '-k "test_' in lines[start + 2]
    assert not [line for line in lines if line.startswith("2. ")]
    return start


def test_pytest_reports_one_cause(red, engineer):
    """In less than 40 lines after its one traceback, though every check of every cell with a past is an error."""
    status, lines = red
    assert status == 1
    assert engineer.statuses() == {"error": CELLS, "passed": {HEALTHY}}
    start = require_one_cause(lines)
    (heading,) = [number for number, line in enumerate(lines) if "1 cause of " in line]
    assert start == heading + 1
    assert sum(line.startswith("E ") and "TypeError" in line for line in lines) == 1
    (summary,) = [number for number, line in enumerate(lines) if "short test summary info" in line]
    assert len(lines) - summary < 40


def test_the_gate_and_the_page_report_one_cause(red, engineer):
    """Against the nearest baseline or none; first on the page and in its summary."""
    status, lines = engineer.call("parity.reports", "--check")
    assert status == 1
    require_one_cause(lines)
    assert len(lines) < 40
    status, lines = engineer.call("parity.reports", "--check", "--format=json")
    (cause,) = json.loads("\n".join(lines))["causes"]["all"]
    assert cause["cells"] == len(CELLS)
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    status, lines = engineer.call("parity.reports")
    assert status == 0
    text = (engineer.directory / "reports" / "out" / "report.md").read_text(encoding="utf-8").splitlines()
    assert require_one_cause(text) < text.index(next(line for line in text if line.startswith("## error")))
    page = (engineer.directory / "reports" / "out" / "report.html").read_text(encoding="utf-8")
    assert re.findall(r'<h2 id="causes">(.*?)</h2>', page) == [f"1 cause of {COUNT} red checks"]
    assert {*re.findall(r'data-cause="(\d+)"', page)} == {"1"}
    assert f"<b>{len(CELLS)}</b> cells<br>" in page


@pytest.mark.parametrize("declaration", DECLARATIONS)
def test_it_is_declared_once_and_turns_red_when_it_is_mended(tmp_path, declaration):
    """The run is green with expected failures; without the break it is red, and names the deviation."""
    engineer = Engineer(tmp_path)
    engineer.declare(DECLARED.format(message=DECLARATIONS[declaration]))
    status, lines = engineer.test()
    assert status == 0, lines
    assert engineer.statuses() == {"xfailed": CELLS, "passed": {HEALTHY}}
    status, lines = engineer.test(MENDED="1")
    assert status == 1
    expected = {"xpassed": CELLS} if declaration == "by its scope" else {"passed": CELLS | {HEALTHY}}
    assert engineer.statuses() == {"passed": {HEALTHY}, **expected}
    assert any("the argument of the caches has another name (https://example.org/1; transformers)" in x for x in lines)
    assert sum(line.startswith("FAILED ") for line in lines) == 1
