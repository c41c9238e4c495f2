"""Every way to install gives the same packages, runs the intended code, and shows types to tools."""

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from parity.fixtures.controls import wheels

ROOT = Path(__file__).parents[2]
LINKS = ("architectures", "fixtures", "reports")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of the sources; `files` has plain files instead of links, as in a ZIP or in git without links."""

    @functools.cache
    def copy(kind):
        directory = tmp_path_factory.mktemp(kind)
        wheels.copy_sources(directory)
        for name in LINKS if kind == "files" else ():
            link = directory / "parity" / name
            target = os.readlink(link)
            link.unlink()
            link.write_text(target)
        return directory

    return copy


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    """The wheel of a copy, made without the network."""

    @functools.cache
    def build(kind):
        return wheels.build(source(kind), tmp_path_factory.mktemp("built"))

    return build


def contents(path):
    """Name → checksum of the files in a wheel, without pip's metadata."""
    with zipfile.ZipFile(path) as archive:
        return {entry.filename: entry.CRC for entry in archive.infolist() if ".dist-info/" not in entry.filename}


def test_a_copy_without_links_installs_the_same(wheel):
    """A ZIP of the repository, or a clone without symbolic links, gives the same files."""
    files = contents(wheel("links"))
    assert {
        "parity/architectures/bert.py",
        "parity/reports/pages/page.py",
        "parity/py.typed",
        "parity/onnx/__init__.pyi",
    } <= {*files}
    assert contents(wheel("files")) == files


def test_the_wheel_has_the_suite_and_its_kit_and_nothing_else(wheel):
    """The tests of the matrix and their kit; no unit tests, and no deliberate faults."""
    files = contents(wheel("links"))
    kit = {
        "architectures/conformance/test_parity.py",
        "architectures/bert.py",
        "fixtures/plugin.py",
        "reports/recording/installed.py",
    }
    assert {f"parity/{name}" for name in kit} <= {*files}
    assert [name for name in files if name.startswith("parity/tests/")] == []
    assert [
        name for name in files if "/test_" in name and not name.startswith("parity/architectures/conformance/")
    ] == []
    assert [name for name in files if "fault" in name or "specimen" in name] == []
    missing = [
        path.name for path in (ROOT / "architectures").glob("*.py") if f"parity/architectures/{path.name}" not in files
    ]
    assert missing == []


def test_without_setup_py_such_a_copy_would_not_install(source, tmp_path):
    """The previous test passes because of setup.py."""
    shutil.copytree(source("files"), tmp_path / "copy")
    (tmp_path / "copy" / "setup.py").unlink()
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*pip, tmp_path / "copy"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "parity/architectures" in done.stdout + done.stderr


FILES = """
import sys
import parity.onnx.__main__, parity.architectures.bert, parity.fixtures.sizes, parity.reports.pages.support
print(*sorted({module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "parity"}), sep="\\n")
"""


def test_inside_a_clone_its_own_code_runs(source):
    """All of it: no folder is imported from an installation."""
    process = subprocess.run(
        [sys.executable, "-c", FILES], cwd=source("links"), capture_output=True, text=True, check=True
    )
    paths = process.stdout.splitlines()
    assert len(paths) > 15
    assert [path for path in paths if not path.startswith(f"{source('links')}/parity/")] == []


def test_the_installed_command_runs_what_is_installed(source, tmp_path):
    """Also inside a clone whose own code fails; `python -m` uses the clone's module there."""
    shutil.copytree(source("links"), tmp_path / "clone", symlinks=True)
    (tmp_path / "clone" / "parity" / "__init__.py").write_text("raise ImportError('the clone')\n")
    commands = {
        "installed": [Path(sysconfig.get_path("scripts")) / "parity", "--help"],
        "clone": [sys.executable, "-m", "parity.cli", "--help"],
    }
    options = {"cwd": tmp_path / "clone", "capture_output": True, "text": True}
    processes = {name: subprocess.run(command, **options) for name, command in commands.items()}
    assert processes["installed"].returncode == 0
    assert "usage: parity" in processes["installed"].stdout
    assert "ImportError: the clone" in processes["clone"].stderr


CHECKERS = ("mypy", "basedpyright")
typed = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in CHECKERS),
    reason=f"{' and '.join(CHECKERS)} are not installed: .ci/run has them",
)


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """The interpreter of an environment: this one, one with only our wheel, or an empty one."""

    def create(kind):
        if kind == "here":
            return sys.executable
        directory = tmp_path_factory.mktemp(kind)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory], check=True)
        interpreter = directory / "bin" / "python"
        if kind == "wheel":
            pip = [
                sys.executable,
                "-m",
                "pip",
                "--python",
                interpreter,
                "install",
                "--quiet",
                "--no-deps",
                "--no-index",
            ]
            subprocess.run([*pip, wheel("links")], check=True)
        return interpreter

    return create


def every_module():
    """The names of all modules, through the links."""
    for directory, folders, files in os.walk(ROOT / "parity", followlinks=True):
        folders[:] = [name for name in folders if name not in ("tests", "__pycache__", "out")]
        for name in files:
            if name.endswith(".py") and not name.startswith(("test_", "__")):
                yield ".".join(Path(directory, name).relative_to(ROOT).with_suffix("").parts)


def run_checker(checker, interpreter, directory, text):
    """The output of a type checker for a program."""
    program = directory / "program.py"
    program.write_text(text)
    options = {
        "mypy": ["--config-file", "", "--follow-imports", "silent", "--no-error-summary", "--python-executable"],
        "basedpyright": ["--pythonpath"],
    }
    # Ignore modules of other packages.
    (directory / "pyrightconfig.json").write_text('{"typeCheckingMode": "basic", "include": ["program.py"]}')
    command = [sys.executable, "-m", checker, *options[checker], interpreter, *["program.py"] * (checker == "mypy")]
    process = subprocess.run(command, cwd=directory, capture_output=True, text=True, env={**os.environ, "MYPYPATH": ""})
    (directory / "pyrightconfig.json").unlink()
    program.unlink()
    return process.stdout + process.stderr


@typed
@pytest.mark.parametrize("checker", CHECKERS)
@pytest.mark.parametrize("kind", ["here", "wheel", "clone"])
def test_type_checkers_see_every_module_and_the_signatures(checker, kind, python, source, wheel, tmp_path):
    """Installed from a checkout, from a wheel, and in a clone without installation; a misspelt name is refused."""
    directory = source("links") if kind == "clone" else tmp_path
    names = sorted(every_module())
    if kind == "wheel":
        names = [name for name in names if f"{name.replace('.', '/')}.py" in contents(wheel("links"))]
    assert len(names) > 100
    lines = ["import parity.onnx", *(f"import {name}" for name in names), "reveal_type(parity.onnx.export)"]
    lines += ["import parity.nowhere", "parity.onnx.exprt"]
    messages = run_checker(checker, python(kind), directory, "\n".join(lines)).splitlines()
    unresolved = [line for line in messages if any(word in line for word in UNRESOLVED)]
    assert len(unresolved) == 1, unresolved
    assert "parity.nowhere" in unresolved[0]
    (signature,) = [line for line in messages if "preprocessor:" in line]
    assert "opset: int" in signature
    assert "tuple[list[str], list[str]]" in signature
    assert [line for line in messages if "exprt" in line]


UNRESOLVED = ("import-not-found", "import-untyped", "reportMissingImports", "reportMissingModuleSource")
