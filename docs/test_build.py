"""The controls of the build of the pages: what `tox -e docs` must fail for makes it fail, and the API is complete.

Run by `tox -e docs`, which has Sphinx and neither torch nor the rest of the test suite.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parent
HERE = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", "-E", "-b", "dummy"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A copy of the sources with the pages that need little time."""
    directory = tmp_path_factory.mktemp("repository")
    for name in ("parity", "architectures", "fixtures", "reports"):
        (directory / name).symlink_to(DOCS.parent / name, target_is_directory=True)
    for name in ("constraints.txt", "tox.ini"):
        shutil.copy(DOCS.parent / name, directory)
    (directory / "docs").mkdir()
    for name in ("conf.py", "generated.py", "messages.py", "judge.md", "benchmarks.md"):
        shutil.copy(DOCS / name, directory / "docs")
    (directory / "docs" / "api").mkdir()
    shutil.copy(DOCS / "api" / "errors.md", directory / "docs" / "api")
    return directory / "docs"


def build(source, text):
    """Exit status, and what is told, of a build of the pages with one more that has this text."""
    (source / "index.md").write_text(f"# Pages\n\n```{{toctree}}\njudge\nbenchmarks\napi/errors\n```\n\n{text}\n")
    done = subprocess.run([*HERE, str(source), str(source / "_build")], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_a_page_with_good_links_is_built(source):
    """To a page, to a heading, to a name of the API; a table that is generated."""
    text = "[a](judge.md) [b](judge.md#the-checks)\n\n```{eval-rst}\n.. autoclass:: parity.onnx.OnnxConfig\n```\n"
    assert build(source, text + "\n```{generated} exporters\n```\n") == (0, "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[a](jugde.md)", "jugde.md"),
        ("[a](judge.md#the-chekcs)", "the-chekcs"),
        ("[a](#nowhere)", "nowhere"),
        ("![a](nothing.png)", "nothing.png"),
        ("```{eval-rst}\n.. autofunction:: parity.onnx.exprt\n```", "exprt"),
        ("```{eval-rst}\nSee :py:func:`parity.onnx.exprt`.\n```", "exprt"),
        ("```{generated} nothing\n```", "nothing"),
        ("```{tabel} a\n```", "tabel"),
        ("```{include} nothing.md\n```", "nothing.md"),
    ],
    ids=["page", "heading", "heading here", "picture", "API name", "reference", "table", "directive", "include"],
)
def test_what_does_not_exist_fails(source, text, message):
    """One broken thing each, named in the output."""
    status, told = build(source, text)
    assert status != 0
    assert message in told


def test_a_page_that_no_list_has_fails(source):
    """It could not be reached."""
    (source / "orphan.md").write_text("# Orphan\n")
    status, told = build(source, "")
    (source / "orphan.md").unlink()
    assert status != 0
    assert "orphan" in told


@pytest.mark.parametrize("name", ["onnx", "torchscript", "neuron", "architectures"])
def test_the_reference_has_every_public_name(name):
    """Of what `tox -e docs` has built just before: each name that the stub of the package exports."""
    page = (DOCS / "_build" / "api" / f"{name}.html").read_text(encoding="utf-8")
    folder = DOCS.parent / ("architectures" if name == "architectures" else f"parity/{name}")
    stub = (folder / "__init__.pyi").read_text(encoding="utf-8")
    names = re.findall(r"^from \.\w+ import (\w+) as", stub, re.MULTILINE)
    # A constant has no docstring; `Runner` is on the page of parity.torchscript.
    exempt = {"EXTERNAL_DATA_FORMAT_SIZE_LIMIT", *(["Runner"] if name == "neuron" else [])}
    assert len(names) > 5
    assert [each for each in names if f'id="parity.{name}.{each}"' not in page and each not in exempt] == []
