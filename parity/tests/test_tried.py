"""Packages newer than any tested: one line after a failure, and only then."""

from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from parity import console, environment
from parity.environment import NEWEST_TESTED, newer_than_tested
from parity.errors import CheckpointError, UsageError

ROOT = Path(__file__).parents[2]
TRIED = NEWEST_TESTED["transformers"]


@pytest.fixture
def set_version(monkeypatch):
    """A function that sets the installed transformers; other packages have the newest tested version."""

    def say(version):
        versions = {**NEWEST_TESTED, "transformers": version}
        monkeypatch.setattr(environment, "version_of", versions.get)

    return say


def test_a_newer_package_is_named(set_version):
    """The line has both versions."""
    set_version("5.99.0")
    assert newer_than_tested() == f"transformers 5.99.0 is newer than any that was tried ({TRIED})"


@pytest.mark.parametrize("version", [TRIED, f"{TRIED}+local", "4.46.3", None])
def test_an_older_one_is_not(set_version, version):
    """Neither tested versions of any build, nor older or missing packages."""
    set_version(version)
    assert newer_than_tested() == ""


def fail():
    raise CheckpointError("it is broken")


def misuse():
    raise UsageError("no such feature")


@pytest.mark.parametrize(
    ("body", "status", "has_note"),
    [(fail, 1, True), (lambda: 1, 1, True), (lambda: 0, 0, False), (misuse, 2, False)],
    ids=["error", "failed", "passed", "usage"],
)
def test_failures_say_so(set_version, capsys, body, status, has_note):
    """A failing command ends with the note; a passing or misused one does not."""
    set_version("5.99.0")
    assert console.run_guarded("parity x", body) == status
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert notes == ([f"note: {newer_than_tested()}"] if has_note else [])


def test_what_the_readme_installs_was_tried():
    """No version in constraints.txt is newer than the newest tested."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [Requirement(line) for line in lines if not line.startswith("#")]
    pins = {each.name: next(iter(each.specifier)).version for each in pinned}
    assert set(NEWEST_TESTED) <= set(pins)
    assert [name for name, tried in NEWEST_TESTED.items() if Version(pins[name]) > Version(tried)] == []
