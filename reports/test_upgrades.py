"""One command runs an upgrade, one finds the first bad release; environments and suite are stubs here."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from parity import records
from parity.errors import EnvironmentGap, UsageError
from parity.fixtures.controls import specimens
from parity.reports import __main__ as command
from parity.reports.lanes import environments, upgrades
from parity.reports.lanes.environments import Release

ROOT = Path(__file__).parents[1]
PYTHON = sys.executable
LISTED = ["5.22.0", "5.23.0", "5.23.1", "5.24.0rc1", "5.24.0", "5.25.0", "5.26.0", "6.0.0"]
CELL = "bert-default-onnx11"
WITH = "with torch 2.13.0, onnxruntime 1.32.0"
# Replaces the Python of an environment: answers the calls of pytest that the command makes.
FAKE = """#!{python}
import json, sys
from pathlib import Path

sys.path.insert(0, {root!r})
from parity import records
from parity.fixtures.controls import specimens
from parity.reports.gate.parts import Part

place = Path(__file__).parent
behaviour = json.loads((place.parent / "behaviour.json").read_text())
way = behaviour.get(place.name, "passes")
words = dict(word.split("=", 1) for word in sys.argv if word.startswith("--") and "=" in word)
collecting = "--collect-only" in sys.argv
with (place.parent / "calls.txt").open("a") as stream:
    stream.write(place.name + " " + ("collect" if collecting else words["--shard"]) + "\\n")
if way in ("usage", "nothing", "broken"):
    print("ERROR: no cell has all of it" if way == "usage" else "E   ImportError: cannot import name 'Cache'")
    sys.exit({{"usage": 4, "nothing": 5, "broken": 2}}[way])
if collecting:
    print("12/100 tests collected (88 deselected) in 0.1s")
    sys.exit(0)
index, count = map(int, words["--shard"].split("/"))
lines = [line for line in specimens.run() if line["architecture"] == ("bert", "vit")[index - 1]]
if way == "fails":
    cause = {{"exception": "TypeError", "place": "transformers.cache:update"}}
    lines = [{{**line, "status": "failed", "error": "no argument 'past'", "cause": cause}} for line in lines]
version = behaviour.get("version") or place.name.rpartition("-")[2]
keys = {{(line["id"], line["check"]) for line in specimens.run()}}
if "-k" in sys.argv:
    lines = [line for line in lines if line["opset"] == 11]
selected = {{(line["id"], line["check"]) for line in lines}}
part = Part({{"-k": "onnx11"}}, checks=frozenset(keys - selected)).as_json()
shard = {{"index": index, "of": count, "whole": "abc", "checks": len(lines)}}
environment = specimens.environment(shard=shard, selection=part, transformers=version)
records.write(Path(words["--records"]), environment, lines)
sys.exit(int(way == "fails"))
"""


class Stubs:
    """Replaces the package index, the environments and the environment of this process."""

    def __init__(self, directory):
        self.directory, self.behaviour, self.gaps = directory, {}, set()
        directory.mkdir()

    def python(self, name):
        """An executable that answers like the environment of that name."""
        path = self.directory / name / "python"
        path.parent.mkdir(exist_ok=True)
        path.write_text(FAKE.format(python=PYTHON, root=str(ROOT)))
        path.chmod(0o755)
        (self.directory / "behaviour.json").write_text(json.dumps(self.behaviour))
        return path

    def environment(self, release, home):
        """Replaces `Release.environment`."""
        if release.version in self.gaps:
            error = f"WARNING: x\nERROR: No matching distribution found for {release.name}\n"
            raise subprocess.CalledProcessError(1, "pip", stderr=error)
        return self.python(release.name)

    @property
    def calls(self):
        """Environment and part of each run since the last call."""
        path = self.directory / "calls.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines


@pytest.fixture
def stubs(tmp_path, monkeypatch):
    """Stubs in a separate directory, with transformers 5.23.0 here; a run has 12 tests in two parts."""
    monkeypatch.chdir(tmp_path)
    stubs = Stubs(tmp_path / "stubs")
    monkeypatch.setattr(Release, "environment", lambda release, home: stubs.environment(release, home))
    monkeypatch.setattr(environments, "list_releases", lambda package: LISTED)
    monkeypatch.setattr(upgrades, "describe", lambda: dict(specimens.ENVIRONMENT))
    monkeypatch.setattr(upgrades, "version_of", lambda package: "5.23.0" if package == "transformers" else None)
    monkeypatch.setattr(upgrades, "TESTS_OF_A_PART", 6)
    monkeypatch.setattr(upgrades.sys, "executable", stubs.python("here-5.23.0"))
    return stubs


@pytest.fixture
def act(stubs, capsys):
    """A function that runs the command; returns exit status, standard output and standard error."""

    def run(*arguments):
        stubs.python("here-5.23.0")
        capsys.readouterr()
        status = command.main([*arguments])
        return status, *capsys.readouterr()

    return run


UPGRADE = ("--upgrade", "transformers==5.24.0")
REPORT = Path("reports/upgrades/transformers-5.23.0-to-5.24.0.md")


def lacks(text):
    """What the first ten lines of an output lack."""
    head = "\n".join(text.splitlines()[:10])
    parts = {
        "the releases": r"^# .*\d+\.\d+\.\d+.* (→|…) \S*\d+\.\d+\.\d+",
        "whether anything is worse": r"Nothing is worse\.|Worse: .*|nothing is worse|ends with exit status",
        "the command": r"Reproduce it with: `python -m parity\.reports --(upgrade|bisect|diff) .+`",
    }
    missing = [name for name, pattern in parts.items() if not re.search(pattern, head)]
    # If something is worse, they must name the cause too.
    lacking = re.search(r"Worse: [\d,]+ checks? ", head) and "the largest cause is" not in head
    return missing + (["the cause"] if lacking else [])


def test_an_upgrade_that_changes_nothing_is_0(act, stubs):
    """Both environments run, in parts; report, records and page are kept."""
    status, output, error = act(*UPGRADE)
    assert status == 0
    assert stubs.calls == [
        f"{name} {call}" for name in ("here-5.23.0", "transformers-5.24.0") for call in ("collect", "1/2", "2/2")
    ]
    assert output.splitlines()[:4] == [
        f"transformers 5.23.0 → 5.24.0, {WITH}",
        "",
        "Nothing is worse.",
        "Reproduce it with: python -m parity.reports --upgrade transformers==5.24.0",
    ]
    assert lacks(REPORT.read_text()) == []
    environment, lines = records.read(REPORT.with_suffix("") / "records.jsonl")
    assert (environment["packages"]["transformers"], len(lines)) == ("5.24.0", 12)
    assert (REPORT.with_suffix("") / "report.html").exists()
    assert "transformers 5.24.0: part 1 of 2: 6 checks, 0 red, about 0 min left" in error


def test_an_upgrade_that_breaks_something_is_1(act, stubs):
    """The first ten lines have the cause; JSON has all."""
    stubs.behaviour["transformers-5.24.0"] = "fails"
    status, output, _ = act(*UPGRADE)
    assert status == 1
    verdict = "Worse: 12 checks of 6 cells; the largest cause is TypeError in transformers.cache:update."
    assert verdict in output.splitlines()
    text = REPORT.read_text()
    assert lacks(text) == []
    assert any("TypeError in transformers.cache:update" in line for line in text.splitlines()[7:10])
    status, output, _ = act(*UPGRADE, "--format", "json")
    assert (status, json.loads(output)["counts"]["regressed"]) == (1, 12)
    assert stubs.calls.count("transformers-5.24.0 1/2") == 1, "what was run is kept"


def test_the_baseline_stands_for_this_environment(act, stubs, tmp_path):
    """If it exists, the cells are not run here; given records take precedence."""
    records.write(tmp_path / "here.jsonl", specimens.environment(), specimens.run())
    assert command.main(["--accept", "here.jsonl"]) == 0
    assert act(*UPGRADE)[0] == 0
    assert not any(call.startswith("here") for call in stubs.calls)
    bad = specimens.change_records(specimens.run(), CELL, status="failed")
    records.write(tmp_path / "here.jsonl", specimens.environment(), bad)
    status, output, _ = act(*UPGRADE, "here.jsonl")
    assert (status, "1 fixed" in output) == (0, True)
    records.write(tmp_path / "other.jsonl", specimens.environment(torch="2.12.0"), bad)
    status, _, error = act(*UPGRADE, "other.jsonl")
    assert (status, "should be of this environment" in error) == (2, True)


def test_a_part_has_a_report_of_its_own(act, stubs, tmp_path):
    """Its selection is in the name and in the command; checks that it left out of the baseline are not gone."""
    records.write(tmp_path / "here.jsonl", specimens.environment(), specimens.run())
    assert command.main(["--accept", "here.jsonl"]) == 0
    status, output, _ = act(*UPGRADE, "-k", "onnx11", "--feature", "default")
    assert status == 0
    assert "left them out: 4 cells" in output
    assert not REPORT.exists()
    text = REPORT.with_name("transformers-5.23.0-to-5.24.0-part-k-onnx11-feature-default.md").read_text()
    assert "--upgrade transformers==5.24.0 -k onnx11 --feature default`" in text


def test_an_interrupted_run_goes_on_where_it_was(act, stubs, monkeypatch):
    """Nothing is used of the part that was interrupted, nor of other code or another selection."""
    real = upgrades._pytest

    def interrupt(python, log, arguments):
        if "--shard=2/2" in arguments and "5.24.0" in str(python):
            raise KeyboardInterrupt
        return real(python, log, arguments)

    monkeypatch.setattr(upgrades, "_pytest", interrupt)
    status, _, error = act(*UPGRADE)
    assert status == 130
    (line,) = (each for each in error.splitlines() if "interrupted" in each)
    assert line.endswith(f"error: interrupted; {environments.KEPT}")
    assert not REPORT.exists()
    monkeypatch.setattr(upgrades, "_pytest", real)
    assert stubs.calls
    assert act(*UPGRADE)[0] == 0
    assert stubs.calls == ["transformers-5.24.0 2/2"]
    monkeypatch.setattr(environments, "code", lambda: "another")
    status, _, error = act(*UPGRADE)
    assert "belongs to other code or another selection, and is run again" in error
    assert len(stubs.calls) == 6


SENTENCES = {
    "no requirement": (["--upgrade", "transformers>=5"], 2, "got transformers>=5, should be NAME==VERSION"),
    "not installed": (["--upgrade", "jax==1.0"], 2, "jax: is not installed here"),
    "the same": (["--upgrade", "transformers==5.23"], 2, "transformers is 5.23.0 here already"),
    "unknown": (["--upgrade", "transformers==9.9"], 2, "transformers==9.9: the package index lists no such release"),
    "no range": (["--bisect", "transformers", "5.24.0"], 2, "got 5.24.0, should be FIRST..LAST"),
    "a range backwards": (["--bisect", "transformers", "5.24..5.23"], 2, "with a later LAST"),
    "an unknown end": (["--bisect", "transformers", "5.23..5.99"], 2, "transformers==5.99: the package index lists no"),
    "records besides": (["--bisect", "transformers", "5.23..5.24", "--", "x"], 2, "got records x, should be none"),
    "an option alone": (["-k", "bert"], 2, "-k: works only with --upgrade or --bisect"),
}


@pytest.mark.parametrize("name", SENTENCES)
def test_what_cannot_be_is_one_sentence(act, stubs, name):
    """With exit status 2, before anything is run or written."""
    arguments, expected, message = SENTENCES[name]
    status, _, error = act(*arguments)
    assert status == expected
    (line,) = error.strip().splitlines()
    assert message in line
    assert stubs.calls == []
    assert not Path("reports/upgrades").exists()


WAYS = {
    "usage": (2, "pytest refuses -m x: no cell has all of it"),
    "nothing": (2, "-m x: selects no cell"),
    "broken": (1, "ends with exit status 2 of pytest: ImportError: cannot import name 'Cache'"),
    "gap": (1, "cannot be installed: ERROR: No matching distribution found"),
    "version": (1, "the environment has 5.22.0, should have 5.24.0"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_suite_that_does_not_run_is_told(act, stubs, way):
    """In one sentence, and no report is written; every other test is a control."""
    expected, message = WAYS[way]
    stubs.gaps |= {"5.24.0"} if way == "gap" else set()
    stubs.behaviour.update({"version": "5.22.0"} if way == "version" else {"transformers-5.24.0": way})
    status, _, error = act(*UPGRADE, "-m", "x")
    assert status == expected
    assert message in error.splitlines()[-1]
    assert "Traceback" not in error
    assert not list(Path().glob("reports/upgrades/*.md"))


def test_without_a_network_it_is_one_sentence(act, monkeypatch):
    """Exit status 1."""
    gap = EnvironmentGap("transformers: the package index cannot be reached; try again with a network")
    monkeypatch.setattr(environments, "list_releases", lambda package: (_ for _ in ()).throw(gap))
    for arguments in (UPGRADE, ("--bisect", "transformers", "5.23..5.24")):
        status, _, error = act(*arguments)
        assert status == 1
        assert error.splitlines()[0].endswith(str(gap))


BISECT = ("--bisect", "transformers", "5.22.0..6.0.0")
RANGE = [version for version in LISTED if "rc" not in version]
BISECTED = Path("reports/upgrades/transformers-5.22.0-to-6.0.0-bisect.md")


@pytest.mark.parametrize("first", range(1, len(RANGE)))
@pytest.mark.parametrize("way", ["fails", "broken"])
def test_the_first_bad_release_is_found(act, stubs, first, way):
    """Wherever it is, in few runs, with its cause; also if the suite does not even start with it."""
    stubs.behaviour.update({f"transformers-{version}": way for version in RANGE[first:]})
    status, output, _ = act(*BISECT)
    assert status == 1
    assert output.startswith(f"transformers 5.22.0 … 6.0.0, {WITH}: {RANGE[first]} is the first that is worse\n")
    assert ("TypeError" if way == "fails" else "cannot import name 'Cache'") in "\n".join(output.splitlines()[:5])
    assert lacks(BISECTED.read_text()) == []
    versions = {call.partition(" ")[0] for call in stubs.calls}
    assert len(versions) <= 5
    assert "transformers-5.24.0rc1" not in versions
    if way == "fails":
        assert f"{RANGE[first - 1]} → {RANGE[first]}" in output


def test_a_range_in_which_nothing_is_worse_is_0(act, stubs):
    """The first and the last are run."""
    status, output, _ = act(*BISECT)
    assert status == 0
    assert output.splitlines()[:3] == [
        f"transformers 5.22.0 … 6.0.0, {WITH}: nothing is worse with the last",
        "",
        "Nothing is worse.",
    ]
    assert {call.split()[0] for call in stubs.calls} == {"transformers-5.22.0", "transformers-6.0.0"}
    assert lacks(BISECTED.read_text()) == []


def test_a_release_that_cannot_be_had_is_left_out(act, stubs):
    """In the middle it is reported and the search continues around it; at an end there is nothing to compare with."""
    stubs.gaps = {"5.24.0", "5.25.0"}
    stubs.behaviour.update({f"transformers-{version}": "fails" for version in ("5.24.0", "5.25.0", "5.26.0", "6.0.0")})
    status, output, _ = act(*BISECT)
    assert status == 1
    assert "5.26.0 is the first that is worse" in output
    assert output.count("cannot be tried: transformers==5.2") == 2
    for version in ("5.22.0", "6.0.0"):
        stubs.gaps = {version}
        status, _, error = act("--bisect", "transformers", "5.22.0..6.0.0", "-k", version)
        assert status == 1
        assert f"transformers=={version}: cannot be installed" in error.splitlines()[-1]


def test_an_interrupted_search_goes_on(act, stubs):
    """Finished runs of a release are not repeated."""
    stubs.behaviour["transformers-6.0.0"] = "fails"
    first = act(*BISECT)
    assert stubs.calls
    assert act(*BISECT)[:2] == first[:2]
    assert stubs.calls == []


@pytest.fixture
def index(monkeypatch):
    """A function that makes pip answer with an output and an error."""

    def answer(output, error=""):
        process = subprocess.CompletedProcess([], 0 if output else 1, output, error)
        monkeypatch.setattr(environments.subprocess, "run", lambda command, **options: process)
        return environments.list_releases("onnx")

    return answer


def test_what_the_index_lists(index):
    """The oldest first, by number; builds of a version once."""
    text = "onnx (1.10.0)\nAvailable versions: 1.10.0+cpu, 1.10.0, 1.9.0, 1.9.0rc1\n  INSTALLED: 1.9.0\n"
    assert index(text, "WARNING: pip index is currently an experimental command.") == ["1.9.0rc1", "1.9.0", "1.10.0"]


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        ("WARNING: Retrying (Retry(total=0)) after connection broken", EnvironmentGap, "cannot be reached"),
        ("ERROR: No matching distribution found for onnx", UsageError, "lists no release of it"),
        ("/usr/bin/python: No module named pip", EnvironmentGap, "pip, which is not installed"),
    ],
)
def test_an_index_without_an_answer(index, error, kind, message):
    """Unreachable, without the package, and without pip are different errors."""
    with pytest.raises(kind, match=message):
        index("", error)


COMMITTED = sorted((ROOT / "reports" / "upgrades").glob("*.md"))


def test_committed_outputs_begin_with_what_a_reader_looks_for():
    """Releases, whether anything is worse and why, and the command."""
    assert len(COMMITTED) > 1
    assert {path.name: lacks(path.read_text(encoding="utf-8")) for path in COMMITTED} == {
        path.name: [] for path in COMMITTED
    }


def test_an_output_that_lacks_something_is_seen(act, stubs):
    """Each part, in the first ten lines."""
    stubs.behaviour["transformers-5.24.0"] = "fails"
    act(*UPGRADE)
    text = REPORT.read_text()
    assert lacks(text) == []
    assert lacks("\n" * 10 + text) == ["the releases", "whether anything is worse", "the command"]
    assert lacks(text.replace("Reproduce it with", "x")) == ["the command"]
    assert lacks(text.replace("the largest cause is", "x")) == ["the cause"]
    assert lacks(text.replace("→ 5.24.0", "→ x", 1).replace("→ 5.24.0", "→ x")) == ["the releases"]
