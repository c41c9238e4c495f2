"""Docstrings of public functions have `Args` with every parameter and `Raises` with classes that exist."""

import builtins
import importlib
import inspect
import re

import pytest

from parity import errors

PACKAGES = ("parity.onnx", "parity.torchscript", "parity.neuron", "parity.architectures")


def public_functions():
    """Name → function, for functions that the packages export and for the static methods of FeaturesManager."""
    functions = {}
    for name in PACKAGES:
        package = importlib.import_module(name)
        members = {f"{name}.{each}": getattr(package, each) for each in package.__all__}
        functions.update({each: member for each, member in members.items() if inspect.isfunction(member)})
    manager = importlib.import_module("parity.onnx").FeaturesManager
    statics = {each: member.__func__ for each, member in vars(manager).items() if isinstance(member, staticmethod)}
    functions.update({f"parity.onnx.FeaturesManager.{n}": f for n, f in statics.items() if not n.startswith("_")})
    return functions


def public_classes():
    """Name → class, for classes that the packages export."""
    classes = {}
    for name in PACKAGES:
        package = importlib.import_module(name)
        members = {f"{name}.{each}": getattr(package, each) for each in package.__all__}
        classes.update({each: member for each, member in members.items() if inspect.isclass(member)})
    return classes


def section(docstring, title):
    """The names at the start of the lines of a section of a docstring, one or several before a colon."""
    _, heading, rest = docstring.partition(f"\n{title}:\n")
    if not heading:
        return None
    block = re.split(r"\n(?=\S)", rest)[0]
    lines = re.findall(r"^    (\S[^:\n]*):", block, re.MULTILINE)
    return [name.strip() for line in lines for name in line.split(",")]


def problems(function, docstring):
    """Missing and superfluous entries in the docstring of a function."""
    parameters = [name for name in inspect.signature(function).parameters if name != "self"]
    arguments, raised = section(docstring, "Args"), section(docstring, "Raises")
    lines = [] if arguments is not None or not parameters else ["no Args"]
    lines += [f"{name}: not in Args" for name in parameters if name not in (arguments or ())]
    lines += [f"{name}: no parameter" for name in arguments or () if name not in parameters]
    lines += [] if raised else ["no Raises"]
    known = {**vars(builtins), **vars(errors)}
    return lines + [f"{name}: no exception" for name in raised or () if name not in known]


def test_each_public_function_has_args_and_raises():
    """Every parameter, and the class alone before the colon."""
    functions = public_functions()
    assert len(functions) >= 20
    found = {name: problems(function, inspect.getdoc(function)) for name, function in functions.items()}
    assert {name: lines for name, lines in found.items() if lines} == {}


def specimen(first, second=None):
    pass


GOOD = "It.\n\nArgs:\n    first: a.\n    second: b.\n\nRaises:\n    UsageError: c.\n    KeyError, ValueError: d."


@pytest.mark.parametrize(
    ("docstring", "lines"),
    [
        (GOOD, []),
        (GOOD.replace("first: a.\n    second", "first, second"), []),
        (GOOD.replace("    second: b.\n", ""), ["second: not in Args"]),
        (GOOD.replace("second: b", "third: b"), ["second: not in Args", "third: no parameter"]),
        (GOOD.replace("UsageError: c", "UsageError (a ValueError): c"), ["UsageError (a ValueError): no exception"]),
        (GOOD.replace("KeyError", "KeyMissing"), ["KeyMissing: no exception"]),
        (GOOD.partition("\n\nRaises")[0], ["no Raises"]),
        ("It.", ["no Args", "first: not in Args", "second: not in Args", "no Raises"]),
    ],
)
def test_a_docstring_that_lacks_something_is_seen(docstring, lines):
    """The control."""
    assert problems(specimen, docstring) == lines


def test_each_public_class_and_method_has_a_docstring():
    """At least one sentence; Args if it has three parameters or more."""
    missing = []
    for name, member in public_classes().items():
        methods = {f"{name}.{each}": f for each, f in inspect.getmembers(member, inspect.isroutine) if each[0] != "_"}
        own = {each: f for each, f in methods.items() if (getattr(f, "__module__", "") or "").startswith("parity")}
        missing += [each for each, f in {name: member, **own}.items() if not inspect.getdoc(f)]
        for each, method in own.items():
            parameters = [p for p in inspect.signature(method).parameters if p not in ("self", "cls")]
            if len(parameters) >= 3 and not section(inspect.getdoc(method) or "", "Args"):
                missing.append(f"{each}: no Args")
    assert missing == []
