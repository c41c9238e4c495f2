"""Finds declarations: modules in `parity/architectures`, entry points of other packages, and named modules.

A declaration that cannot be loaded is refused; all others are still found.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import itertools
import pkgutil
from collections.abc import Callable, Iterator
from types import TracebackType

import parity.architectures as package
from parity.declaration import FINDERS, Architecture
from parity.errors import UsageError

ENTRY_POINT = "parity.architectures"
# Modules that were named on a command line.
_extra_modules: list[str] = []

# The place of a declaration, and the function that loads it.
_Source = tuple[str, Callable[[], object]]


def architectures() -> tuple[Architecture, ...]:
    """All declarations by name, except refused ones. A module is one file: it needs no other edit."""
    return _load()[0]


def refusals() -> dict[str, str]:
    """Module or entry point of a refused declaration → the reason, in one sentence."""
    return dict(_load()[1])


@functools.cache
def _load() -> tuple[tuple[Architecture, ...], dict[str, str]]:
    declarations: dict[str, Architecture] = {}
    refusals: dict[str, str] = {}
    for source, load in itertools.chain(_from_package(), _from_entry_points(), _from_extra_modules()):
        try:
            architecture = _require_architecture(source, load())
            if declarations.setdefault(architecture.name, architecture) is not architecture:
                raise ValueError(f"{source}: declares {architecture.model_type}, which is already declared")
        except Exception as error:
            # An import may raise anything: the others are declared all the same.
            refusals[source] = why_refused(source, error)
    return tuple(declarations[name] for name in sorted(declarations)), refusals


def _require_architecture(source: str, declaration: object) -> Architecture:
    if not isinstance(declaration, Architecture):
        raise ValueError(f"{source}: has no ARCHITECTURE of type Architecture")
    return declaration


def why_refused(source: str, error: Exception) -> str:
    """One sentence: the module and the line that raised, and the error.

    Args:
        source: the module to load; the error may come from a module that it imports.
    """
    kind = "" if type(error) in (ValueError, UsageError) else f"{type(error).__name__}: "
    text = f"{kind}{' '.join(str(error).split())}"
    place = _innermost_module(error.__traceback__)
    return text if text.startswith(source) else f"{place or source}: {text}"


def _innermost_module(trace: TracebackType | None) -> str:
    """Name and line of the module that was being imported; empty if there was none."""
    place = ""
    while trace is not None:
        if trace.tb_frame.f_code.co_name == "<module>":
            place = f"{trace.tb_frame.f_globals.get('__name__')}, line {trace.tb_lineno}"
        trace = trace.tb_next
    return place


def architecture(model_type: str) -> Architecture:
    """The declaration of a model type, spelled with `-` or `_`.

    Raises:
        KeyError
    """
    declaration = _by_name().get(model_type.lower().replace("_", "-"))
    if declaration is None:
        raise KeyError(f"{model_type} is not declared; declared: {', '.join(_by_name())}{refused()}")
    return declaration


def refused() -> str:
    """The end of a message that lists the declared architectures: those that are refused."""
    return "".join(f"; refused: {sentence}" for sentence in dict.fromkeys(refusals().values()))


def include(name: str) -> Architecture:
    """The declaration with this name; if there is none, that of the module with this name is added.

    Raises:
        ValueError: there is neither such a declaration nor such a module, or the module has no declaration.
    """
    if name.lower().replace("_", "-") in _by_name():
        return architecture(name)
    own = refusals().get(f"{package.__name__}.{name.lower().replace('-', '_')}")
    if own:
        raise ValueError(own)
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"{name}: is no declared architecture, and cannot be imported: {error}{refused()}") from error
    except Exception as error:
        raise ValueError(why_refused(name, error)) from error
    declaration = _require_architecture(name, getattr(module, "ARCHITECTURE", None))
    _extra_modules.append(name)
    _load.cache_clear()
    _by_name.cache_clear()
    return architecture(declaration.name)


@functools.cache
def _by_name() -> dict[str, Architecture]:
    return {each.name: each for each in architectures()}


def _from_package() -> Iterator[_Source]:
    for module in pkgutil.iter_modules(package.__path__):
        # A package is no declaration.
        if not module.ispkg:
            name = f"{package.__name__}.{module.name}"
            yield name, functools.partial(_of_module, name)


def _of_module(name: str) -> object:
    return getattr(importlib.import_module(name), "ARCHITECTURE", None)


def _from_entry_points() -> Iterator[_Source]:
    for entry in importlib.metadata.entry_points(group=ENTRY_POINT):
        yield entry.value, entry.load


def _from_extra_modules() -> Iterator[_Source]:
    for name in _extra_modules:
        yield name, functools.partial(_of_module, name)


FINDERS[:] = [architecture]
