"""Which plug-ins are loaded: what cells are tried on, and what is put on record."""

pytest_plugins = ("parity.fixtures.plugin", "parity.reports.recording.plugin", "pytester")
