"""Load the plug-ins that provide cells and record results."""

pytest_plugins = ("parity.fixtures.plugin", "parity.reports.recording.plugin", "pytester")
