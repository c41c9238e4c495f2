"""The promised releases: selected by a word, kept between runs, red if a cell is, and as declared."""

import copy
import json
import os
import subprocess

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from parity.environment import NEWEST_TESTED
from parity.reports.lanes import releases
from parity.reports.lanes.environments import KEPT
from parity.reports.pages.support import README, ROOT, between_marks


def line(**other):
    found = {"architecture": "bert", "feature": "default", "check": "contract", "status": "passed", "error": None}
    return {**found, **other}


@pytest.fixture
def green_result():
    """The result of a release without any failure."""
    run = {"status": 0, "checks": {"passed": 1}, "cells": releases.cells_of([line()])}
    commands = [{"architecture": a, "feature": f, "status": 0, "error": ""} for a, f in releases.COMMANDS]
    result = {"package": "transformers", "version": "5.0.0", "code": "0", "seconds": 60, "commands": commands}
    return {**result, "smoke": run, "matrix": copy.deepcopy(run)}


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["4.5"], [f"transformers-{v}" for v in releases.RELEASES["transformers"] if v.startswith("4.5")]),
        (["onnx-1.16"], ["onnx-1.16.2"]),
        (["5.20", "torch-2.8"], ["transformers-5.20.2", "torch-2.8.0"]),
        (["newest"], [f"transformers-{v}" for v in releases.RELEASES["transformers"][-5:]]),
        (["6"], []),
    ],
)
def test_a_word_chooses_what_it_begins(words, names):
    """Of a version, or of package and version; `newest` is five of transformers."""
    assert [release.name for release in releases.selection(words)] == names


def test_without_a_word_all_are_chosen():
    """Every release, once."""
    every = [release.name for release in releases.selection(())]
    assert len(every) == len(set(every)) == sum(map(len, releases.RELEASES.values()))


def test_a_cell_is_its_worst_check_with_its_causes():
    """Counted by architecture; skips are ignored, a declared deviation has its reason."""
    lines = [
        line(),
        line(architecture="albert", check="checker", status="failed", error="first\nsecond"),
        line(check="values", status="xfailed", error="known"),
        line(feature="masked-lm", status="skipped", error="not here"),
        line(architecture="t5", feature="seq2seq-lm"),
    ]
    counts = releases.cells_of(lines)
    assert counts["encoder"] == {
        "default": {
            "architectures": 2,
            "status": "failed",
            "causes": ["albert checker: first", "bert values: known"],
        }
    }
    assert counts["encoder-decoder"]["seq2seq-lm"] == {"architectures": 1, "status": "passed", "causes": []}


def test_nothing_wrong_is_green(green_result):
    """The specimen of the next test; a declared deviation is green too."""
    assert releases.causes(green_result) == []
    assert releases.is_green(green_result)
    green_result["smoke"]["cells"] = releases.cells_of([line(status="xfailed", error="known")])
    assert releases.causes(green_result) == [("xfailed", "smoke, default: bert contract: known")]
    assert releases.is_green(green_result)


def _one_cell(result):
    result["matrix"]["cells"] = releases.cells_of([line(status="failed", error="wrong")])


def _one_command(result):
    result["commands"][3].update(status=2, error="no such file")


def _no_checks(result):
    result["smoke"].update(status=2, cells={})


def _no_smoke(result):
    del result["smoke"]


def _no_trials(result):
    result["smoke"].update(cells={})


def _fewer_commands(result):
    result["commands"].pop()


def _broken(result):
    result["broken"] = "Segmentation fault"


def _not_had(result):
    del result["smoke"], result["matrix"], result["commands"]
    result["gap"] = "no matching distribution"


@pytest.mark.parametrize(
    "spoil", [_one_cell, _one_command, _no_checks, _no_smoke, _no_trials, _fewer_commands, _broken, _not_had]
)
def test_one_thing_wrong_is_red(green_result, spoil):
    """A cell, a command, a run without checks, a process that ends early, a release that cannot be installed."""
    spoil(green_result)
    assert not releases.is_green(green_result)
    causes = releases.causes(green_result)
    text = releases.page([green_result])
    if spoil not in (_fewer_commands, _no_smoke, _no_trials):
        (cause,) = [cause for _, cause in causes]
        assert cause in text
    assert "| 5.0.0 |" in releases.summary([green_result]).replace("none", "")


def test_the_page_marks_red_and_declared(green_result):
    """✗ with the number of its cause, ✓ with a number if it is declared, and the matrix with its count."""
    green_result["smoke"]["cells"] = releases.cells_of(
        [line(status="failed", error="wrong"), line(feature="masked-lm")]
    )
    green_result["matrix"]["cells"] = releases.cells_of([line(status="xfailed", error="known")])
    text = releases.page([green_result])
    assert "| 5.0.0 | ✗ [1] | ✓ | 7 of 7 | ✓ 1 [2] | 60 |" in text
    assert "1. smoke, default: bert contract: wrong\n2. matrix, default: bert contract: known\n" in text


def test_a_release_that_cannot_be_had_says_so(tmp_path, monkeypatch, capsys):
    """Without an index pip finds nothing: one line, no environment counts as ready, exit status 1."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setattr(releases, "RELEASES", {"transformers": ("4.0.99",), "onnx": ("1.0.99",)})
    assert releases.main(["transformers", "--home", str(tmp_path)]) == 1
    told = capsys.readouterr().out
    assert "cannot be had: ERROR: No matching distribution found for transformers==4.0.99" in told
    assert not (tmp_path / "transformers-4.0.99" / "ready").exists()


def test_an_environment_lies_above_this_one(tmp_path, monkeypatch):
    """It sees the packages of this environment, and is created once."""
    monkeypatch.setattr(releases.subprocess, "run", without_pip := _WithoutPip())
    release = releases.Release("transformers", "5.0.0")
    python = release.environment(tmp_path)
    assert without_pip.installed == ["transformers==5.0.0"]
    # Neither those of this process nor those of pip's own settings.
    assert without_pip.constraints == [os.devnull]
    found = subprocess.run([python, "-c", "import numpy, sys; print(sys.prefix)"], capture_output=True, text=True)
    assert found.stdout.strip() == str(tmp_path / release.name)
    assert release.environment(tmp_path) == python
    assert len(without_pip.installed) == 1


class _WithoutPip:
    """`subprocess.run` that only logs what pip should install."""

    def __init__(self):
        self._run, self.installed, self.constraints = subprocess.run, [], []

    def __call__(self, command, **options):
        if "pip" not in command:
            return self._run(command, **options)
        self.installed.append(command[-1])
        self.constraints.append(options["env"]["PIP_CONSTRAINT"])
        return subprocess.CompletedProcess(command, 0)


def test_a_run_that_is_broken_off_goes_on(tmp_path, monkeypatch, capsys, green_result):
    """At the interrupted step; results of other code are reported, and run again on request."""
    steps, broken = [], []

    def run_step(release, home, result, step):
        steps.append((release.version, step))
        if (release.version, step) == ("5.1.0", "smoke") and not broken:
            broken.append(step)
            raise KeyboardInterrupt
        result.update({step: green_result.get(step, {}), "seconds": result.get("seconds", 0) + 20})

    monkeypatch.setattr(releases, "run_step", run_step)
    monkeypatch.setattr(releases, "RELEASES", {"transformers": ("5.0.0", "5.1.0"), "onnx": ("1.20.1",)})
    monkeypatch.setattr(releases, "MATRIX", ("5.0.0",))
    monkeypatch.setattr(releases, "code", lambda: "0")
    command = ["5.", "--home", str(tmp_path)]
    assert releases.main([*command, "--without-matrix"]) == 130
    assert capsys.readouterr().err.endswith(f"error: interrupted; {KEPT}\n")
    first = [("5.0.0", step) for step in ("installing", "smoke", "commands")]
    assert steps == [*first, ("5.1.0", "installing"), ("5.1.0", "smoke")]
    del steps[:]
    assert releases.main(command) == 0
    assert steps == [("5.0.0", "matrix"), ("5.1.0", "smoke"), ("5.1.0", "commands")]
    output = capsys.readouterr().out
    assert "1/2 transformers-5.0.0: green, 80 s\n" in output
    assert "2/2 transformers-5.1.0: green, 60 s\n" in output
    del steps[:]
    monkeypatch.setattr(releases, "code", lambda: "another")
    assert releases.main(command) == 0
    assert steps == []
    assert "5.1.0: green, 60 s, kept of other code: --again tries it again" in capsys.readouterr().out
    assert releases.main([*command, "--again", "--without-matrix"]) == 0
    assert steps == [*first, *(("5.1.0", step) for step in ("installing", "smoke", "commands"))]


def test_an_unknown_release_is_refused(capsys):
    """With exit status 2."""
    with pytest.raises(SystemExit) as error:
        releases.main(["9"])
    assert error.value.code == 2
    assert "no release begins with 9" in capsys.readouterr().err


def test_the_newest_that_was_tried_is_the_last_of_the_list():
    """The note of the commands and the list of releases agree."""
    assert {package: versions[-1] for package, versions in releases.RELEASES.items()} == NEWEST_TESTED
    for versions in releases.RELEASES.values():
        assert sorted(versions, key=Version) == list(versions)
        assert len({Version(version).release[:2] for version in versions}) == len(versions)
    assert {*releases.MATRIX} <= {*releases.RELEASES["transformers"]}


@pytest.fixture
def dependencies():
    """The dependencies that pyproject.toml declares."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]


# tox.ini tests one more torch: that of Inf1.
OLDEST_OF_ALL = {"torch": "1.13.1"}


def list_mismatches(dependencies, results):
    """Promises of pyproject.toml that the table does not show, and the reverse, a line for each."""
    specifiers = {(requirement := Requirement(text)).name: requirement.specifier for text in dependencies}
    for package, versions in releases.RELEASES.items():
        bounds = [each for each in specifiers[package] if each.operator == ">="]
        oldest = Version(OLDEST_OF_ALL.get(package, versions[0])).release[:2]
        if [Version(each.version).release[:2] for each in bounds] != [oldest]:
            yield f"{package}: {', '.join(map(str, bounds))}, tried from {'.'.join(map(str, oldest))} on"
    for result in results:
        allowed = specifiers[result["package"]].contains(result["version"])
        if allowed != releases.is_green(result):
            is_, should = ("promised", "red") if allowed else ("excluded", "green")
            yield f"{result['package']} {result['version']}: {is_} and {should}"


def test_a_promise_that_the_table_does_not_hold_is_seen(green_result, dependencies):
    """A bound below the tested versions, a red release that is promised, a green release that is excluded."""
    results = [{**green_result, "version": version} for version in releases.RELEASES["transformers"]]
    assert list(list_mismatches(dependencies, results)) == []
    less = [text.replace(">=4.46.3", ">=4.40") for text in dependencies]
    assert list(list_mismatches(less, results)) == ["transformers: >=4.40, tried from 4.46 on"]
    fewer = [text.replace("<6", "!=5.6.*,<6") for text in dependencies]
    assert list(list_mismatches(fewer, results)) == ["transformers 5.6.2: excluded and green"]
    results[-1] = {**green_result, "version": results[-1]["version"], "commands": []}
    assert list(list_mismatches(dependencies, results)) == ["transformers 5.24.0: promised and red"]


@pytest.fixture(scope="module")
def committed():
    """The results in the table that is committed."""
    return json.loads(releases.TABLE.read_text(encoding="utf-8"))


def list_gaps(results):
    """What the table lacks: a release of the range, or a step of one, a line for each."""
    known = {(result["package"], result["version"]): result for result in results}
    for release in releases.selection(()):
        result = known.get((release.package, release.version), {})
        yield from (f"{release.name}: {step}" for step in releases.steps_of(release) if step not in result)


def test_the_table_has_every_release_and_every_step(committed):
    """Over the whole range; the control: without the last release, or without one step of all."""
    assert list(list_gaps(committed)) == []
    last = releases.selection(())[-1]
    assert list(list_gaps(committed[:-1])) == [f"{last.name}: {step}" for step in releases.steps_of(last)]
    for step, count in (("commands", len(releases.selection(()))), ("matrix", len(releases.MATRIX))):
        less = [{name: value for name, value in result.items() if name != step} for result in committed]
        having = [release for release in releases.selection(()) if step in releases.steps_of(release)]
        assert list(list_gaps(less)) == [f"{release.name}: {step}" for release in having]
        assert len(having) == count


def test_what_is_promised_is_green_in_the_table(committed, dependencies):
    """Bounds and exclusions of pyproject.toml are those of the table."""
    assert list(list_mismatches(dependencies, committed)) == []


def test_the_pages_are_those_of_the_table(committed):
    """The page of results and the table of the README are made from the same results."""
    assert releases.TABLE.with_suffix(".md").read_text(encoding="utf-8") == releases.page(committed)
    readme = README.read_text(encoding="utf-8")
    assert between_marks(readme, releases.summary(committed), "releases") == readme
