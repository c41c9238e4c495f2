"""pytest plug-in: records warnings of upstream packages, which are no failures, and reports each once.

The frame that calls `warnings.warn` decides who warns, not `stacklevel`, which points at the code to change. A
warning of any other code, including parity, stays what the configuration makes of it: an error.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from parity.environment import newer_than_tested
from parity.records import printable
from parity.reports.gate.causes import pattern_of
from parity.reports.gate.changes import count_text

UPSTREAM = ("transformers", "torch", "onnx", "onnxruntime", "numpy")
_MODULES = rf"({'|'.join(UPSTREAM)})(\..*)?\Z"
FILTERS = (
    *(f"default::{category}:{_MODULES}" for category in ("FutureWarning", "DeprecationWarning", "UserWarning")),
    # torch >= 2.9 recommends the torch.export-based exporter, which cannot deliver an opset below 18.
    "ignore:You are using the legacy TorchScript-based ONNX export:DeprecationWarning",
    "ignore:The feature will be removed:DeprecationWarning",
    # transformers 4 has modules that script functions at import.
    "ignore:`torch.jit.script` is deprecated:DeprecationWarning",
)
# Number of kinds of warnings to list at the end of a run; the rest is counted.
LISTED = 5
# Decorators of these modules warn on behalf of the function that they decorate.
_DECORATORS = ("typing_extensions", "warnings")
_OWN = pytest.StashKey[Callable[..., None]]()


def pytest_configure(config: pytest.Config) -> None:
    for line in FILTERS:
        config.addinivalue_line("filterwarnings", line)
    config.stash[_OWN] = warnings.warn
    warnings.warn = _warn_function(warnings.warn)
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Summary(), "parity-upstream")


def pytest_unconfigure(config: pytest.Config) -> None:
    warnings.warn = config.stash[_OWN]


class _Summary:
    """Counts upstream's warnings and reports them at the end, in place of pytest's own list."""

    def __init__(self) -> None:
        # (category, module, pattern) → count, and its first text.
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._texts: dict[tuple[str, str, str], str] = {}

    def pytest_warning_recorded(self, warning_message: warnings.WarningMessage) -> None:
        warning = warning_facts(warning_message)
        if warning:
            key = warning["category"], warning["module"], pattern_of(warning["text"])
            self._counts[key] += 1
            self._texts.setdefault(key, warning["text"])

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        terminal = session.config.pluginmanager.get_plugin("terminalreporter")
        if terminal is not None and "warnings" in terminal.stats:
            others = [each for each in terminal.stats["warnings"] if not module_of(str((each.fslocation or [""])[0]))]
            terminal.stats["warnings"] = others

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
        if exitstatus and newer_than_tested():
            terminalreporter.write_line(f"note: {newer_than_tested()}")
        if self._counts:
            terminalreporter.section("warnings of upstream packages: they fail nothing now, but the next releases may")
        for key, count in self._counts.most_common(LISTED):
            category, module, _ = key
            terminalreporter.write_line(f"{count} × {category} of {module}: {self._texts[key]}")
        rest = sorted(self._counts.values(), reverse=True)[LISTED:]
        if rest:
            terminalreporter.write_line(f"and {count_text(len(rest), 'warning')} more, given {sum(rest):,} times")


def _warn_function(own: Callable[..., None]) -> Callable[..., None]:
    """Wrap `warnings.warn`: an upstream package's warning gets the place of its own call, whatever its `stacklevel`."""

    def warn(
        message: Warning | str,
        category: type[Warning] | None = None,
        stacklevel: int = 1,
        source: Any = None,
        **options: Any,
    ) -> None:
        frame = sys._getframe(1)
        module, file, line = _speaker(frame)
        if not _is_upstream(module):
            # Other code may not pass its warnings off as upstream's.
            disguised = _is_upstream(_name(frame, stacklevel - 1))
            return own(message, category, 2 if disguised else stacklevel + 1, source, **options)
        registry = frame.f_globals.setdefault("__warningregistry__", {})
        if isinstance(message, Warning):
            return warnings.warn_explicit(message, type(message), file, line, module, registry, source=source)
        return warnings.warn_explicit(message, category or UserWarning, file, line, module, registry, source=source)

    return warn


def _speaker(frame: FrameType) -> tuple[str, str, int]:
    """Module, file and line of who warns; for a warning of a decorator, those of the decorated function."""
    name = frame.f_globals.get("__name__") or ""
    decorated = frame.f_locals.get("arg") if name in _DECORATORS else None
    if decorated is None:
        return name, frame.f_code.co_filename, frame.f_lineno
    code = getattr(decorated, "__code__", frame.f_code)
    return getattr(decorated, "__module__", None) or name, code.co_filename, code.co_firstlineno


def _name(frame: FrameType | None, levels: int) -> str:
    for _ in range(levels):
        frame = frame and frame.f_back
    return frame.f_globals.get("__name__") or "" if frame else ""


def _is_upstream(module: str) -> bool:
    return module.partition(".")[0] in UPSTREAM


def module_of(path: str) -> str:
    """The dotted name of the upstream module in a file; empty if the file belongs to none."""
    parts = list(Path(path).with_suffix("").parts)
    places = [place for place, part in enumerate(parts) if part in UPSTREAM]
    # Prefer the directory in site-packages: a parent directory may have the name of a package too.
    installed = [place for place in places if place and parts[place - 1] in ("site-packages", "dist-packages")]
    place = next(iter(installed or places[-1:]), None)
    if place is None:
        return ""
    return ".".join(part for part in parts[place:] if part != "__init__")


def warning_facts(warning: warnings.WarningMessage) -> dict[str, str] | None:
    """Category, module and first line of an upstream warning; None for any other."""
    module = module_of(warning.filename)
    if not module:
        return None
    lines = str(warning.message).strip().splitlines() or [""]
    return {"category": warning.category.__name__, "module": module, "text": printable(lines[0][:300])}
