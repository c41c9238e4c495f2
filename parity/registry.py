"""Finds declarations: modules in `parity/architectures`, entry points of other packages, and named modules."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import pkgutil
from collections.abc import Iterator

import parity.architectures as package
from parity.declaration import FINDERS, Architecture

ENTRY_POINT = "parity.architectures"
# Modules that were named on a command line.
_extra_modules: list[str] = []


@functools.cache
def architectures() -> tuple[Architecture, ...]:
    """All declarations, by name. A module is one file: it needs no other edit.

    Raises:
        ValueError: a module without the object ARCHITECTURE, or two declarations of one model type.
    """
    declarations: dict[str, Architecture] = {}
    for source, architecture in [*_from_package(), *_from_entry_points(), *_from_extra_modules()]:
        if not isinstance(architecture, Architecture):
            raise ValueError(f"{source}: has no ARCHITECTURE of type Architecture")
        if declarations.get(architecture.name, architecture) is not architecture:
            raise ValueError(f"{source}: declares {architecture.model_type}, which is already declared")
        declarations[architecture.name] = architecture
    return tuple(declarations[name] for name in sorted(declarations))


def architecture(model_type: str) -> Architecture:
    """The declaration of a model type, spelled with `-` or `_`.

    Raises:
        KeyError
    """
    declaration = _by_name().get(model_type.lower().replace("_", "-"))
    if declaration is None:
        raise KeyError(f"{model_type} is not declared; declared: {', '.join(_by_name())}")
    return declaration


def include(name: str) -> Architecture:
    """The declaration of that name; one that is not declared yet is looked for in the module of that name, and joins.

    Raises:
        ValueError: there is neither such a declaration nor such a module, or the module has none.
    """
    if name.lower().replace("_", "-") in _by_name():
        return architecture(name)
    try:
        declaration = getattr(importlib.import_module(name), "ARCHITECTURE", None)
    except ImportError as error:
        raise ValueError(f"{name}: is no declared architecture, and cannot be imported: {error}") from error
    if not isinstance(declaration, Architecture):
        raise ValueError(f"{name}: has no ARCHITECTURE of type Architecture")
    _extra_modules.append(name)
    architectures.cache_clear()
    _by_name.cache_clear()
    return architecture(declaration.name)


@functools.cache
def _by_name() -> dict[str, Architecture]:
    return {each.name: each for each in architectures()}


def _from_package() -> Iterator[tuple[str, object]]:
    """Where each declaration should be, and what is there."""
    for module in pkgutil.iter_modules(package.__path__):
        # Packages are none.
        if not module.ispkg:
            name = f"parity.architectures.{module.name}"
            yield name, getattr(importlib.import_module(name), "ARCHITECTURE", None)


def _from_entry_points() -> Iterator[tuple[str, object]]:
    for entry in importlib.metadata.entry_points(group=ENTRY_POINT):
        yield entry.value, entry.load()


def _from_extra_modules() -> Iterator[tuple[str, object]]:
    for name in _extra_modules:
        yield name, importlib.import_module(name).ARCHITECTURE


FINDERS[:] = [architecture]
