"""What texts point at exists: files and tests in commands and documents."""

import re

import pytest

from parity.tests.test_names import ROOT, sources

DOCUMENTS = ("README.md", "docs/*.md", "tox.ini", ".ci/run", ".github/workflows/*.yml")
CHANGES = ROOT / "docs" / "changes.md"
# A file of the repository, and a test in it where one is named.
PATH = re.compile(r"(?<![\w./-])((?:architectures|docs|fixtures|parity|reports)/[\w./-]*\w\.(?:py|md))\b(?:::(\w+))?")
# What a run writes, and the README's example of a declaration to come.
NOT_THERE = ("reports/out/", "architectures/ernie.py")


def missing_paths(text):
    """Each file or test that a text names and that is not there."""
    missing = []
    for match in PATH.finditer(text):
        name, test = match.groups()
        path = ROOT / name
        there = path.is_file() and (test is None or f"def {test}(" in path.read_text(encoding="utf-8"))
        if not there and not name.startswith(NOT_THERE):
            missing.append(match.group())
    return missing


def texts():
    """File → text of the library and of the documents; of the changes only what is, not what was."""
    library = [path for path in sources() if not path.name.startswith("test_") or "conformance" in path.parts]
    for path in [*library, *(path for pattern in DOCUMENTS for path in ROOT.glob(pattern))]:
        text = path.read_text(encoding="utf-8")
        if path == CHANGES:
            text = "\n".join(line.rsplit(" | ", 1)[-1] for line in text.splitlines())
        yield path.relative_to(ROOT).as_posix(), text


def test_each_path_that_is_named_exists():
    """In code, its comments, the README, the documents and what continuous integration runs."""
    named = dict(texts())
    assert {"README.md", "docs/glossary.md", "tox.ini", ".ci/run", ".github/workflows/parity.yml"} <= {*named}
    assert sum(len(PATH.findall(text)) for text in named.values()) > 20
    assert {file: missing for file, text in named.items() if (missing := missing_paths(text))} == {}


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        (
            'command += ["architectures/test_contract.py::test_contract"]',
            ["architectures/test_contract.py::test_contract"],
        ),
        (
            "run `architectures/conformance/test_contract.py::test_it`",
            ["architectures/conformance/test_contract.py::test_it"],
        ),
        ("see docs/nothing.md.", ["docs/nothing.md"]),
        ("architectures/conformance/test_contract.py::test_contract, docs/glossary.md", []),
        ("reports/out/report.md, /elsewhere/docs/nothing.md, reports/{name}.md", []),
    ],
    ids=["file", "test", "document", "both exist", "outputs, other places and placeholders"],
)
def test_a_path_that_does_not_exist_is_found(text, missing):
    """The control."""
    assert missing_paths(text) == missing
