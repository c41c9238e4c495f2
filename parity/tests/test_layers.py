"""Imports follow a table of rows without circles, and using names does not import torch."""

import ast
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("architectures", "fixtures", "reports")

# Row → its modules, from the bottom up. A row may import itself and those below, unless `ONLY` allows less.
ROWS = {
    "base": r"parity|errors|files|onnx_files|environment|aws|releases|words|scope|axes|tasks|dtypes|exporters|opsets"
    r"|console|records|schema|archives|turns"
    r"|publication|stages|interruptions|paths|shortage|supervision",
    "judge": r"judge(\..*)?",
    "configurations": r"configs(\..*)?",
    "declarations": r"declaration|registry|architectures(\.(?!conformance).*)?",
    "checkpoint": r"adapters|arguments|checkpoint_files|dependence|opening|unused|sentences"
    r"|loading|preprocessors|checkpoint|companions|ownership|features|traceable|samples|padding|shapes|encodings|extent|thorough|sessions|reference",
    "exporters": r"(onnx|torchscript|neuron)(\.(?!__main__$).*)?|validation|reruns|causes",
    "commands": r"check|(onnx|torchscript|neuron)\.__main__",
    "gate": r"reports(\.(gate|pages)(\..*)?)?",
    "kit": r"architectures\.conformance(\..*)?|fixtures(\..*)?",
    "plug-ins": r"cli|reports\..*",
}
ONLY = {
    "judge": {"base", "judge"},
    "configurations": {"base", "configurations"},
    "declarations": {"base", "configurations", "declarations"},
    "gate": {"base", "judge", "gate"},
}
NEVER = {"kit": {"gate"}}
# Packages that the library may never import.
FOREIGN = ("pytest", "hypothesis", "xdist")


def modules(root):
    """Name → file of every module, through the links, without tests."""
    paths = {}
    for directory, folders, files in os.walk(root / "parity", followlinks=True):
        folders[:] = [name for name in folders if name not in ("__pycache__", "out", "tests")]
        for name in files:
            if name.endswith(".py") and not name.startswith("test_"):
                path = Path(directory, name)
                parts = path.relative_to(root).with_suffix("").parts
                paths[".".join(parts[: -1 if parts[-1] == "__init__" else None])] = path
    return paths


def list_imports(name, path):
    """The names that a module imports, also inside functions, and names of our modules in its strings.

    Such strings may be imported. Stubs of lazy packages are not read: they only list the modules of their own package.
    """
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    for node in (node for node in ast.walk(tree) if id(node) not in for_types):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and re.fullmatch(r"parity(\.\w+)+\.?", str(node.value)):
            yield node.value.rstrip(".")


def graph(root):
    """Module → our modules that it imports."""
    names = modules(root)
    edges = defaultdict(set)
    for name, path in names.items():
        for target in list_imports(name, path):
            while target and target not in names:
                target = target.rpartition(".")[0]
            if target not in ("", "parity", name):
                edges[name].add(target)
    return dict(edges)


def row_of(name):
    """The row of a module.

    Raises:
        LookupError: the table has no place for it.
    """
    inside = name.removeprefix("parity.")
    for row, pattern in ROWS.items():
        if re.fullmatch(pattern, inside):
            return row
    raise LookupError(f"{name}: is in no row; give it its place in the table")


def trespasses(edges):
    """Imports that the table forbids, a line for each."""
    order = list(ROWS)
    for name, targets in sorted(edges.items()):
        row = row_of(name)
        allowed = ONLY.get(row, {*order[: order.index(row) + 1]}) - NEVER.get(row, set())
        for target in sorted(targets):
            if row_of(target) not in allowed:
                yield f"{name} ({row}) imports {target} ({row_of(target)})"


def circles(edges):
    """The strongly connected components with more than one node."""
    reached = {}
    for start in edges:
        todo, visited = [start], set()
        while todo:
            new = set(edges.get(todo.pop(), ())) - visited
            visited |= new
            todo += new
        reached[start] = visited
    groups = {frozenset(n for n in reached if n in reached[m] and m in reached.get(n, ())) for m in reached}
    return sorted(sorted(circle) for circle in groups if len(circle) > 1)


def packages(edges, root):
    """The import graph between sub-packages; modules directly below parity count individually."""
    own = {name for name, path in modules(root).items() if path.name == "__init__.py" and name != "parity"}

    def node(name):
        return name if name in own else next((p for p in [name.rpartition(".")[0]] if p in own), name)

    package_edges = defaultdict(set)
    for name, targets in edges.items():
        package_edges[node(name)] |= {node(target) for target in targets} - {node(name)}
    return dict(package_edges)


def test_imports_follow_the_table():
    """Every module has a row, and imports nothing that its row may not."""
    edges = graph(ROOT)
    assert len(edges) > 100
    assert [name for name in modules(ROOT) if name != "parity" and not row_of(name)] == []
    assert list(trespasses(edges)) == []


def test_nothing_goes_in_a_circle():
    """Neither modules nor sub-packages import each other, also not through functions and strings."""
    edges = graph(ROOT)
    assert circles(edges) == []
    assert circles(packages(edges, ROOT)) == []


def own_axes(text):
    """The lines of a source that set `dynamic_axes` to anything but a Signature's."""
    for node in ast.walk(ast.parse(text)):
        values = []
        if isinstance(node, ast.keyword):
            values = [node.value] * (node.arg == "dynamic_axes")
        elif isinstance(node, ast.Dict):
            keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
            values = [value for key, value in zip(keys, node.values, strict=True) if key == "dynamic_axes"]
        yield from (value.lineno for value in values if not ast.unparse(value).endswith(".dynamic_axes"))


def test_dynamic_axes_come_from_a_signature_alone():
    """Everything passed to `torch.onnx.export` under that name, also in the kit and the benchmarks."""
    lines = {name: [*own_axes(path.read_text(encoding="utf-8"))] for name, path in modules(ROOT).items()}
    assert {name: each for name, each in lines.items() if each} == {}
    control = "f(dynamic_axes=axes)\noptions = {**more, 'dynamic_axes': {}}\nf(dynamic_axes=signature.dynamic_axes)\n"
    assert sorted(own_axes(control)) == [1, 2]


def test_the_library_needs_no_test_tools():
    """No module of the library imports pytest or similar tools; the kit and the plug-ins may."""
    for name, path in modules(ROOT).items():
        if name.split(".")[1:2] not in (["fixtures"], ["reports"]):
            assert [each for each in list_imports(name, path) if each.split(".")[0] in FOREIGN] == [], name


@pytest.mark.parametrize("folder", ["parity", *FOLDERS])
def test_the_folders_have_no_second_name(folder):
    """No import of `architectures`, `fixtures` or `reports` as top-level packages."""
    for path in (ROOT / folder).rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level]
        assert [name for name in names if name.split(".")[0] in FOLDERS] == [], path


def test_a_trespass_would_be_seen(tmp_path):
    """Each kind: upwards, against a stricter rule, in a circle of modules or packages, through a string."""
    for folder in ("judge", "onnx", "reports/pages", "fixtures"):
        (tmp_path / "parity" / folder).mkdir(parents=True)
        (tmp_path / "parity" / folder / "__init__.py").write_text("")
    sources = {
        "errors": "def f():\n    from parity.onnx import checkpoint_export\n",
        "judge/ratio": "from ..onnx.checkpoint_export import x\n",
        "onnx/checkpoint_export": "import parity.judge.ratio\nfrom parity import check\n",
        "check": "",
        "exporters": "EXPORTERS = {'trace': 'parity.onnx.checkpoint_export.TraceExporter'}\n",
        "registry": "NAME = f'parity.onnx.{1}'\n",
        "reports/pages/page": "import parity.check\n",
        "fixtures/plugin": "pytest_plugins = ('parity.fixtures.outside',)\n",
        "fixtures/outside": "from parity.fixtures.plugin import x\nfrom parity.reports.pages.page import y\n",
    }
    for name, text in sources.items():
        (tmp_path / "parity" / f"{name}.py").write_text(text)
    edges = graph(tmp_path)
    assert list(trespasses(edges)) == [
        "parity.errors (base) imports parity.onnx.checkpoint_export (exporters)",
        "parity.exporters (base) imports parity.onnx.checkpoint_export (exporters)",
        "parity.fixtures.outside (kit) imports parity.reports.pages.page (gate)",
        "parity.judge.ratio (judge) imports parity.onnx.checkpoint_export (exporters)",
        "parity.onnx.checkpoint_export (exporters) imports parity.check (commands)",
        "parity.registry (declarations) imports parity.onnx (exporters)",
        "parity.reports.pages.page (gate) imports parity.check (commands)",
    ]
    assert circles(edges) == [
        ["parity.fixtures.outside", "parity.fixtures.plugin"],
        ["parity.judge.ratio", "parity.onnx.checkpoint_export"],
    ]
    assert circles(packages(edges, tmp_path)) == [["parity.judge", "parity.onnx"]]
    with pytest.raises(LookupError, match=r"parity\.nowhere: is in no row"):
        row_of("parity.nowhere")


def test_collection_imports_no_torch():
    """Collecting the whole suite imports neither torch nor transformers."""
    code = (
        "import sys, pytest\n"
        "status = pytest.main(['--collect-only', '-q', '-p', 'no:cacheprovider', '--no-header'])\n"
        "assert status == 0, status\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)), file=sys.stderr)\n"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert process.stderr.strip().splitlines()[-1] == "[]"
