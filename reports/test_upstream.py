"""Upstream's warnings are recorded and reported once, whatever their `stacklevel`; all others are errors."""

import sys
import warnings

import pytest

from parity import records
from parity.reports.recording.upstream import UPSTREAM, module_of

PLUGINS = ("-p", "parity.fixtures.plugin", "-p", "parity.reports.recording.plugin", "-p", "no:cacheprovider")
INI = "[pytest]\nfilterwarnings = error\nmarkers =\n    cells: of a test\n    smoke: a few\n"

# Functions in a module of another name, as if that package had defined them.
SUITE = """
import warnings
import pytest

def of(module, lines):
    path = "/anywhere/site-packages/" + module.replace(".", "/") + ".py"
    names = {"__name__": module, "warnings": warnings}
    exec(compile("def act(*given):\\n    " + lines, path, "exec"), names)
    return names["act"]

FIRST = "transformers.models.bert.modeling_bert"
forward = of(FIRST, "warnings.warn('the old name goes\\\\nin 9.0', FutureWarning, stacklevel=2)")
calls = of("parity.traceable", "given[0]()")
own = of("parity.traceable", "warnings.warn('our own', UserWarning)")
disguised = of("parity.traceable", "warnings.warn('our own', UserWarning, stacklevel=2)")
through_torch = of("torch.nn.modules", "given[0]()")

@pytest.mark.parametrize("times", [1, 2])
def test_upstream(cell, times):
    for _ in range(times):
        calls(forward)

def test_numpy(cell):
    of("numpy.lib", "warnings.warn('deprecated', DeprecationWarning, stacklevel=9)")()

def test_decorated(cell):
    from typing_extensions import deprecated
    old = deprecated("use another")(of("torch.jit", "pass"))
    old()

def test_own(cell):
    own()

def test_disguised(cell):
    through_torch(disguised)

def test_another_package(cell):
    of("somebody.s", "warnings.warn('unknown', UserWarning)")()

def test_expected(cell):
    with pytest.warns(FutureWarning, match="the old name"):
        calls(forward)
"""


@pytest.fixture
def run(pytester):
    pytester.makepyfile(test_suite=SUITE)
    pytester.makeini(INI)

    def runs(*arguments):
        result = pytester.runpytest_subprocess(
            *PLUGINS, "--records", "out.jsonl", "-k", "resnet-default-onnx11", *arguments
        )
        return result, records.read(pytester.path / "out.jsonl")[1]

    return runs


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "two-workers"])
def test_who_warns_decides(run, workers):
    """A FutureWarning of transformers passes and is reported once; one from a line of parity fails its check."""
    result, lines = run(*workers)
    statuses = {(line["check"], line["status"]) for line in lines}
    passed = ("upstream", "numpy", "decorated", "expected")
    failed = ("own", "disguised", "another_package")
    assert statuses == {*((name, "passed") for name in passed), *((name, "failed") for name in failed)}
    warned = {line["check"]: line.get("warnings") for line in lines}
    future = {
        "category": "FutureWarning",
        "module": "transformers.models.bert.modeling_bert",
        "text": "the old name goes",
    }
    assert warned["upstream"] == [future]
    assert warned["numpy"] == [{"category": "DeprecationWarning", "module": "numpy.lib", "text": "deprecated"}]
    assert warned["decorated"] == [{"category": "DeprecationWarning", "module": "torch.jit", "text": "use another"}]
    assert {warned[name] for name in (*failed, "expected")} == {None}
    told = [line for line in result.outlines if "FutureWarning of transformers" in line]
    assert told == ["2 × FutureWarning of transformers.models.bert.modeling_bert: the old name goes"]
    assert not [line for line in result.outlines if "warnings summary" in line]


MANY = """
import warnings
import pytest

@pytest.mark.parametrize("kind", "abcdefg")
@pytest.mark.parametrize("number", range(3))
def test_upstream(cell, kind, number):
    names = {"__name__": "transformers.x", "warnings": warnings}
    path = "/anywhere/site-packages/transformers/x.py"
    text = f"{kind} is gone in 9.{number}"
    exec(compile(f"warnings.warn({text!r}, FutureWarning)", path, "exec"), names)
"""


def test_warnings_that_differ_in_numbers_are_told_once(pytester):
    """Five kinds have a line each, with the first text and a count; the rest is counted."""
    pytester.makepyfile(test_suite=MANY)
    pytester.makeini(INI)
    result = pytester.runpytest_subprocess(*PLUGINS, "--records", "out.jsonl", "-k", "resnet-default-onnx11")
    result.assert_outcomes(passed=21)
    told = [line for line in result.outlines if "FutureWarning of transformers.x" in line]
    assert len(told) == 5
    assert told[0].startswith("3 × FutureWarning of transformers.x: ")
    assert "and 2 warnings more, given 6 times" in result.outlines


@pytest.mark.parametrize("package", UPSTREAM)
def test_module_of_a_file(package):
    """The name starts at its package, wherever that is installed; a directory of the same name is no package."""
    assert module_of(f"/srv/{package}/lib/site-packages/{package}/a/b.py") == f"{package}.a.b"
    assert module_of(f"/usr/lib/python3/dist-packages/{package}/__init__.py") == package
    assert module_of("/srv/torches/parity/onnx_files.py") == ""


def test_warn_is_put_back(pytester):
    """After a run in this process `warnings.warn` is the original again."""
    before = warnings.warn
    pytester.makepyfile(test_nothing="def test_nothing():\n    pass\n")
    pytester.runpytest_inprocess(*PLUGINS)
    assert warnings.warn is before
    assert sys.modules["warnings"].warn is before
