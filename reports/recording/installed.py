"""pytest plug-in of an installation: gives `pytest --pyargs parity.architectures` the plug-ins of the repository's
conftest.

It is loaded by every pytest of its environment, and does nothing unless tests of parity are selected.
"""

from __future__ import annotations

import pytest

PLUGINS = ("parity.fixtures.plugin", "parity.reports.recording.plugin")
MARKERS = (
    "cells: which cells a test of cells is about, by feature and opset",
    "smoke: one architecture of each kind through every format; two minutes",
)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    arguments = early_config.known_args_namespace
    if arguments.pyargs and any(name.startswith("parity.") for name in arguments.file_or_dir):
        for plugin in PLUGINS:
            early_config.pluginmanager.import_plugin(plugin)
        for marker in MARKERS:
            early_config.addinivalue_line("markers", marker)
