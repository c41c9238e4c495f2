"""Files expected in a repository agree on versions, tools, licence and continuous integration."""

import configparser
import re
import zipfile
from pathlib import Path

import pytest
import yaml

from parity import __version__
from parity.fixtures.controls import wheels

ROOT = Path(__file__).parents[2]
# Name and version of a pinned package.
PIN = re.compile(r"\b([a-z][\w-]*)==([\w.]+)")


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def conflicts(*texts):
    """The packages that texts pin to different versions."""
    pins = {}
    for text in texts:
        for name, version in PIN.findall(text):
            pins.setdefault(name.replace("_", "-"), set()).add(version)
    return {name: versions for name, versions in pins.items() if len(versions) > 1}


def section(name):
    """The text of one environment in tox.ini."""
    tox = configparser.ConfigParser()
    tox.read(ROOT / "tox.ini")
    return "\n".join(tox[f"testenv:{name}"].values())


def test_tools_have_one_version():
    """Lint, pre-commit, continuous integration and constraints.txt pin the same ruff, mypy, sphinx, …"""
    texts = [
        read(".pre-commit-config.yaml"),
        section("lint"),
        section("docs"),
        read(".ci/run"),
        read("constraints.txt"),
    ]
    pins = {name for text in texts for name, _ in PIN.findall(text)}
    assert {"ruff", "mypy", "sphinx", "furo", "pytest"} <= pins
    assert conflicts(*texts) == {}


def test_two_versions_are_seen():
    """The control."""
    assert conflicts("ruff==0.1.0 mypy==1.0", "lazy_loader==1\nruff==0.2.0") == {"ruff": {"0.1.0", "0.2.0"}}


def newest(changelog):
    """Version and date of the topmost release in a changelog, below the unreleased section."""
    assert changelog.index("## [Unreleased]") < changelog.index("## [0.")
    return re.search(r"^## \[(\d[\w.]*)\] - (\d{4}-\d\d-\d\d)$", changelog, re.MULTILINE).groups()


def test_the_newest_release_of_the_changelog_is_this_one():
    """Its sections have the headings of Keep a Changelog."""
    text = read("CHANGELOG.md")
    assert newest(text)[0] == __version__
    headings = set(re.findall(r"^### (.*)$", text, re.MULTILINE))
    assert headings <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_version_is_in_one_place():
    """Other files read it from the package."""
    assert "version = { attr =" in read("pyproject.toml")
    assert f'"{__version__}"' not in read("pyproject.toml")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    wheels.copy_sources(source)
    return wheels.build(source, built)


def test_the_wheel_has_licence_version_and_types(wheel):
    """The whole Apache License, the version of the package, and the marker for types."""
    assert wheel.name.startswith(f"parity-{__version__}-")
    with zipfile.ZipFile(wheel) as archive:
        (licence,) = [name for name in archive.namelist() if name.endswith("dist-info/licenses/LICENSE")]
        text = archive.read(licence).decode()
        assert "parity/py.typed" in archive.namelist()
        metadata = archive.read(licence.replace("licenses/LICENSE", "METADATA")).decode()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert "License-Expression: Apache-2.0" in metadata


def missing_parts(workflow, tox, local):
    """Missing commands in the forge's workflow and in `.ci/run`: unit tests, style, types, pages."""
    commands = "\n".join(
        step.get("run") or "" for job in yaml.safe_load(workflow)["jobs"].values() for step in job["steps"]
    )
    parts = {
        "unit": re.search(r"pytest -n auto parity/tests fixtures reports", commands),
        "lint": re.search(r"tox -e lint", commands) and re.search(r"^ruff check", tox["lint"], re.MULTILINE),
        "format": re.search(r"^ruff format --check", tox["lint"], re.MULTILINE),
        "types": re.search(r"^mypy$", tox["lint"], re.MULTILINE),
        "docs": re.search(r"tox -e docs", commands) and "--fail-on-warning" in tox["docs"],
        "newcomer": re.search(r"^timeout \w+ python .ci/newcomer$", local, re.MULTILINE),
    }
    return [name for name, match in parts.items() if not match]


def test_continuous_integration_runs_every_kind_of_check():
    """On the forge as in `.ci/run`."""
    tox = {name: section(name) for name in ("lint", "docs")}
    assert missing_parts(read(".github/workflows/parity.yml"), tox, read(".ci/run")) == []


@pytest.mark.parametrize(
    ("removed", "part"),
    [
        ("tox -e lint", "lint"),
        ("tox -e docs", "docs"),
        ("pytest -n auto parity/tests", "unit"),
        ("--fail-on-warning", "docs"),
        ("python .ci/newcomer", "newcomer"),
        ("\nmypy", "types"),
        ("ruff format", "format"),
    ],
)
def test_a_check_that_is_not_run_is_seen(removed, part):
    """The control."""
    tox = {name: section(name).replace(removed, "") for name in ("lint", "docs")}
    workflow = read(".github/workflows/parity.yml").replace(removed, "")
    assert part in missing_parts(workflow, tox, read(".ci/run").replace(removed, ""))


def test_pre_commit_runs_what_lint_runs():
    """Ruff's check and format, and mypy."""
    (repository,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    entries = {hook["entry"].removesuffix(" --fix") for hook in repository["hooks"]}
    assert entries == {"ruff check", "ruff format", "mypy"}
