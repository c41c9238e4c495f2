"""Output on a terminal: help, versions, tables that fit, no colours."""

import ast
import importlib.util
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

from parity import cli
from parity.console import Console, fail
from parity.environment import PACKAGES, version_of
from parity.fixtures.controls.commands import run

ROOT = Path(__file__).parents[2]
COLUMNS = 80
# Sequences that set a colour, a weight or a style; moving the cursor or erasing is allowed.
STYLE = re.compile(r"\x1b\[[\d;]*m")
NEEDING_TORCH = ("torch", "transformers", "onnx", "onnxruntime")


def wide(text, columns=COLUMNS):
    """The lines that are too long for a terminal."""
    return [line for line in text.splitlines() if len(line) > columns]


def silent_options(text):
    """The options in a help text without an explanation on the same or the next line."""
    lines = [*text.splitlines(), ""]
    options = [number for number, line in enumerate(lines) if re.match(r"  -{1,2}\w", line)]
    return [
        lines[n] for n in options if not re.search(r"\S {2,}\S", lines[n][2:]) and not re.match(r" {20}", lines[n + 1])
    ]


def help_of(monkeypatch, *words):
    """Exit status and text of `parity … --help` on a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    return run(*words, "--help", command=cli.main)


@pytest.mark.parametrize("name", ["", *cli.COMMANDS])
def test_help_fits_a_terminal(name, monkeypatch):
    """Each line has at most 80 characters, every option has an explanation, and nothing has a colour."""
    status, text, _ = help_of(monkeypatch, *filter(None, [name]))
    assert status == 0
    assert wide(text) == []
    assert not STYLE.search(text)
    assert silent_options(text) == []


MODULES = ("parity.onnx.__main__", "parity.check", "parity.torchscript.__main__", "parity.neuron.__main__")


@pytest.mark.parametrize("name", [*MODULES, "parity.reports.__main__", "parity.reports.measuring.benchmarks"])
def test_help_of_a_module_fits_a_terminal(name, monkeypatch):
    """`python -m …`, which has a longer name."""
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    assert wide(importlib.import_module(name).parser().format_help()) == []


def load_messages():
    """The module that prints every help and message."""
    spec = importlib.util.spec_from_file_location("messages", ROOT / "docs" / "messages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Words that are hard to read → their replacements.
HARD = {
    r"\bas which\b": "that … as",
    r"\banew\b": "again",
    r"\bof before\b": "from before",
    r"\bis no (directory|file) here\b": "is not a … on this machine",
    r"\btakes nothing\b": "cannot be written",
    r"\bis there not\b": "is missing",
    r"\bbroken off\b": "interrupted",
    r"\bnot there\b": "is missing, does not exist",
    r"\bis none of\b": "is not a …",
    r"\bin halves\b": "in float16",
    r"\bhas foreseen\b": "unexpected",
    r"\bgo(es)? on\b": "continue",
    r"\bfound out\b": "result",
}


def hard(by_file):
    """(file, line, text) of each message with such words."""
    return [(f, n, text) for f, lines in by_file.items() for n, text in lines for each in HARD if re.search(each, text)]


def test_no_message_has_words_that_are_hard_to_read():
    """Several hundred messages, in each folder of the library."""
    by_file = load_messages().by_file()
    assert sum(map(len, by_file.values())) > 250
    assert {"parity", "reports"} <= {name.split("/")[0] for name in by_file}
    assert hard(by_file) == []


def test_messages_are_found_and_hard_words_too(monkeypatch):
    """The control: an exception, a finding and a warning of a module, with values as braces."""
    module = load_messages()
    code = (
        'def f(a):\n    warn(f"the output is made anew")\n    raise ValueError(f"output: got {a}, should be a path")\n'
    )
    lines = sorted(module.messages(ast.parse(code)))
    assert lines == [(2, "the output is made anew"), (3, "output: got {a}, should be a path")]
    assert hard({"f": lines}) == [("f", 2, "the output is made anew")]


def test_the_commands_are_in_the_order_of_a_days_work(monkeypatch):
    """Export, judge, other formats, suite, results, speed; each has one line."""
    _, text, _ = help_of(monkeypatch)
    names = re.findall(r"^  (\w+) {2,}\S", text, re.MULTILINE)
    assert names == ["onnx", "check", "torchscript", "neuron", "matrix", "reports", "benchmarks"]
    assert names == [*cli.COMMANDS]


def test_without_a_command_the_help_is_an_error():
    """Exit status 2, the help on standard error; for an unknown word the valid ones are listed."""
    status, out, err = run(command=cli.main)
    assert (status, out) == (2, "")
    assert "usage: parity" in err
    status, out, err = run("exprot", command=cli.main)
    assert (status, out) == (2, "")
    assert err.startswith("parity: error: got exprot, should be one of onnx, check")


VERSIONS = "import sys; sys.modules.update(dict.fromkeys({absent!r})); from parity.cli import run; run()"


def test_version_names_what_parity_uses():
    """Parity, Python, and every package with its version or that it is missing, without importing any."""
    program = VERSIONS.format(absent=NEEDING_TORCH)
    done = subprocess.run([sys.executable, "-c", program, "--version"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert re.fullmatch(r"parity \d+\.\d+\.\d+", lines[0])
    assert lines[1].startswith(f"Python {sys.version_info.major}.{sys.version_info.minor}.")
    assert lines[2 : 2 + len(PACKAGES)] == [f"{name} {version_of(name) or 'is not installed'}" for name in PACKAGES]


def test_a_missing_package_is_no_failure_of_version(monkeypatch):
    """The output names it as missing."""
    monkeypatch.setattr("parity.environment.version_of", {"torch": "2.13.0"}.get)
    status, out, _ = run("--version", command=cli.main)
    assert status == 0
    assert "torch 2.13.0\n" in out
    assert "onnx is not installed\n" in out


def test_the_table_of_the_matrix_fits():
    """The whole table, with its counts."""
    status, text, _ = run("matrix", command=cli.main)
    assert status == 0
    assert len(text.splitlines()) > 200
    assert wide(text) == []


def test_reports_fit_a_terminal():
    """The tables that benchmarks and the lane of seeded faults print; the control is the Markdown that they keep."""
    from parity.reports.terminal import narrow

    paths = [*sorted((ROOT / "reports" / "benchmarks").glob("*.md")), ROOT / "reports" / "results" / "mutation.md"]
    texts = [path.read_text(encoding="utf-8") for path in paths]
    assert len(texts) > 5
    assert all(wide(text) for text in texts)
    assert [line for text in texts for line in wide(narrow(text))] == []
    numbers = [set(re.findall(r"[\d.,]+\d", text)) for text in texts]
    assert [set(re.findall(r"[\d.,]+\d", narrow(text))) for text in texts] == numbers


def test_a_line_that_is_too_long_is_seen():
    """The control."""
    assert wide("a\n" + "b" * 81) == ["b" * 81]
    assert STYLE.search("\x1b[1mbold\x1b[0m")
    assert silent_options("  --new TEXT\n  --old       kept\n  --longer\n" + " " * 24 + "told") == ["  --new TEXT"]
    assert not STYLE.search("\r\x1b[K")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}])
def test_nothing_has_a_colour_on_a_terminal(environment, monkeypatch):
    """Progress erases its own line and sets no colour, with or without NO_COLOR."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    console = Console()
    console.progress("loading")
    console.say("done")
    console.warn("careful")
    assert "loading" in terminal.getvalue()
    assert not STYLE.search(terminal.getvalue())


@pytest.mark.parametrize("shown", [True, False])
def test_an_error_replaces_the_line_of_progress(shown, monkeypatch):
    """On a terminal the line is erased first; without progress nothing is."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    if shown:
        Console().progress("loading")
    start = terminal.getvalue()
    fail("parity", "it failed", 1, "test", as_json=False)
    (line,) = terminal.getvalue().removeprefix(start).split("\n")[:1]
    assert line == ("\r\x1b[K" if shown else "") + "parity: error: it failed"


def test_elsewhere_there_is_no_progress(monkeypatch):
    """A file or a pipe gets only the log."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    Console().progress("loading")
    assert stream.getvalue() == ""
