"""The data walks one way: imports go down the list only, and naming things costs no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Layer → what its modules may not import. `parity/` looks architectures up through the registry alone.
FORBIDDEN = {
    "parity": ("parity.fixtures", "parity.reports", "parity.tests", "pytest", "hypothesis", "xdist"),
    "architectures": ("parity.fixtures", "parity.reports", "parity.tests", "pytest", "hypothesis"),
    "fixtures": ("parity.reports", "parity.tests"),
    "reports": ("parity.tests",),
}


def modules(layer):
    for path in sorted((ROOT / layer).rglob("*.py")):
        inside = path.relative_to(ROOT / layer)
        if inside.parts[0] != "tests" and not inside.name.startswith("test_"):
            yield path


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def trespasses(layer, path):
    for name in imports(path):
        if any(name == bad or name.startswith(bad + ".") for bad in FORBIDDEN[layer]):
            yield f"{path.relative_to(ROOT)} imports {name}"
        registry = name.startswith("parity.architectures") and not name.startswith(
            ("parity.architectures.registry", "parity.architectures.declaration")
        )
        if layer == "parity" and registry and name != "parity.architectures.registry":
            yield f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("layer", FORBIDDEN)
def test_imports_go_down_only(layer):
    """No module imports from a layer below it in the walk of the data."""
    checked = list(modules(layer))
    assert checked
    assert [line for path in checked for line in trespasses(layer, path)] == []


def test_a_trespass_would_be_seen(tmp_path, monkeypatch):
    """The check fails on a library module that imports a Cell."""
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "parity").mkdir()
    path = tmp_path / "parity" / "bad.py"
    path.write_text("from parity.architectures.matrix import Cell\nimport pytest\n")
    assert len(list(trespasses("parity", path))) == 2


def test_collection_imports_no_torch():
    """Collecting the whole suite imports neither torch nor transformers."""
    code = (
        "import sys, pytest\n"
        "status = pytest.main(['--collect-only', '-q', '-p', 'no:cacheprovider', '--no-header'])\n"
        "assert status == 0, status\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.strip().splitlines()[-1] == "[]"
