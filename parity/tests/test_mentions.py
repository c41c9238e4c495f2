"""References in texts exist: files and tests in commands and documents, names in docstrings."""

import ast
import functools
import re

import pytest

from parity.tests.test_names import ROOT, sources

DOCUMENTS = ("*.md", "docs/**/*.md", "tox.ini", ".ci/*", ".github/workflows/*.yml")
CHANGES = ROOT / "docs" / "changes.md"
# A file of the repository, optionally with a test in it.
PATH = re.compile(r"(?<![\w./-])((?:architectures|docs|fixtures|parity|reports)/[\w./-]*\w\.(?:py|md))\b(?:::(\w+))?")
# Outputs of a run, and the README's example of a new declaration.
NOT_THERE = ("reports/out/", "architectures/ernie.py")


def missing_paths(text):
    """Each missing file or test that a text names."""
    missing = []
    for match in PATH.finditer(text):
        name, test = match.groups()
        path = ROOT / name
        there = path.is_file() and (test is None or f"def {test}(" in path.read_text(encoding="utf-8"))
        if not there and not name.startswith(NOT_THERE):
            missing.append(match.group())
    return missing


def texts():
    """File → text of the library and of the documents; for changes.md only the last column (the new state)."""
    library = [path for path in sources() if not path.name.startswith("test_") or "conformance" in path.parts]
    # A run leaves directories beside them, such as those for bytecode.
    documents = [path for pattern in DOCUMENTS for path in ROOT.glob(pattern) if path.is_file()]
    for path in [*library, *documents]:
        text = path.read_text(encoding="utf-8")
        if path == CHANGES:
            text = "\n".join(line.rsplit(" | ", 1)[-1] for line in text.splitlines())
        yield path.relative_to(ROOT).as_posix(), text


def test_each_path_that_is_named_exists():
    """In code, its comments, the README, the documents and what continuous integration runs."""
    by_file = dict(texts())
    assert {
        "README.md",
        "CONTRIBUTING.md",
        "docs/glossary.md",
        "docs/api/onnx.md",
        "tox.ini",
        ".ci/run",
        ".github/workflows/parity.yml",
    } <= {*by_file}
    assert sum(len(PATH.findall(text)) for text in by_file.values()) > 20
    assert {file: missing for file, text in by_file.items() if (missing := missing_paths(text))} == {}


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


SEE = re.compile(r"\b[Ss]ee `([\w.]+)`")
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def names_in(nodes):
    """Name → the names in it, of all that a module or a class defines, assigns or imports, also under an `if`."""
    names = {}
    for node in nodes:
        if isinstance(node, ast.ClassDef):
            names[node.name] = names_in(node.body)
        elif isinstance(node, DEFINITIONS):
            names[node.name] = {}
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names.update({(each.asname or each.name).split(".")[0]: None for each in node.names})
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names.update({name.id: {} for each in targets for name in ast.walk(each) if isinstance(name, ast.Name)})
        elif isinstance(node, (ast.If, ast.Try)):
            names.update(names_in([*node.body, *node.orelse]))
    return names


def module_name(path):
    """The dotted name that imports a file of the four folders."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "parity" else ("parity", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def library():
    """Every package, module and class with the names in it, as one tree; None for imported names."""
    tree = {}
    for path in sources():
        node = tree
        for part in module_name(path).split("."):
            node[part] = node.get(part) or {}
            node = node[part]
        # A stub lists the names that a package imports lazily.
        for file in (path, *path.parent.glob(f"{path.name}i")):
            for name, members in names_in(ast.parse(file.read_text(encoding="utf-8")).body).items():
                node[name] = node.get(name) or members
    return tree


def resolves(name, module):
    """Whether a name in a docstring exists: in its module, in a class there, or in an enclosing package."""

    def reaches(node, parts):
        for part in parts:
            if node is None:
                return True
            if part not in node:
                return False
            node = node[part]
        return True

    parts, places, node = name.split("."), [library()], library()
    for part in module.split("."):
        node = node[part]
        places.append(node)
    places += [members for members in node.values() if members]
    return any(reaches(place, parts) for place in places)


def unknown_names(text, module):
    """The names after "see" in docstrings that do not exist."""
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, (*DEFINITIONS, ast.Module))]
    names = [name for node in nodes for name in SEE.findall(ast.get_docstring(node) or "")]
    return [name for name in names if not resolves(name, module)]


def test_each_name_that_a_docstring_says_to_see_exists():
    """After a rename, references to it must follow."""
    unknown, count = {}, 0
    for path in sources():
        text = path.read_text(encoding="utf-8")
        count += len(SEE.findall(text))
        if names := unknown_names(text, module_name(path)):
            unknown[path.relative_to(ROOT).as_posix()] = names
    assert count > 25
    assert unknown == {}


@pytest.mark.parametrize(
    ("name", "unknown"),
    [
        ("Measured", ["Measured"]),
        ("Pool.of", ["Pool.of"]),
        ("parity.judge.values.nothing", ["parity.judge.values.nothing"]),
        ("Measurement", []),
        ("has_exact", []),
        ("Pool.noise", []),
        ("ratio", []),
        ("parity.judge.ratio.judge_ratio", []),
    ],
)
def test_a_name_that_does_not_exist_is_found(name, unknown):
    """The control, in the docstring of a function of `parity.judge.pool`."""
    assert unknown_names(f'def f():\n    """A thing; see `{name}`."""', "parity.judge.pool") == unknown
