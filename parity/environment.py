"""Facts about the machine and the installed packages, read in one place."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import platform
from typing import Any

from parity import __version__

PACKAGES = ("torch", "transformers", "onnx", "onnxruntime", "numpy", "tokenizers", "safetensors")


@functools.cache
def version_of(package: str) -> str | None:
    """The installed version of a distribution, read from its metadata without importing it; None if it is missing."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def at_least(package: str, minimum: str) -> bool:
    """Whether `package` is installed in at least version `minimum`."""
    from packaging.version import Version

    installed = version_of(package)
    return installed is not None and Version(installed) >= Version(minimum)


@functools.cache
def meets(requirements: str) -> bool:
    """Whether the installed versions satisfy requirements: `;` means that all must hold, `or` that one must.

    Examples: `transformers>=5; torch<2.14`, `transformers<5 or transformers>=5.14`.
    """
    from packaging.requirements import Requirement

    def is_met(text: str) -> bool:
        requirement = Requirement(text)
        return requirement.specifier.contains(version_of(requirement.name) or "0", prereleases=True)

    return any(all(map(is_met, each.split(";"))) for each in requirements.split(" or "))


def threads() -> int:
    """Threads for each torch or ONNX Runtime call; 0 lets them choose. The suite's workers set PARITY_THREADS=1."""
    return int(os.environ.get("PARITY_THREADS", "0"))


# The newest release of each package that the suite has been run with.
NEWEST_TESTED = {"torch": "2.15.0", "transformers": "5.24.0", "onnx": "1.23.2", "onnxruntime": "1.32.0"}


def newer_than_tested() -> str:
    """One line that names the installed packages that are newer than the tested ones; empty if there are none."""
    from packaging.version import Version

    newer = [
        f"{name} {version_of(name)} is newer than any that was tried ({newest})"
        for name, newest in NEWEST_TESTED.items()
        if at_least(name, newest) and Version(version_of(name) or "0").release > Version(newest).release
    ]
    return "; ".join(newer)


def describe() -> dict[str, Any]:
    """The environment of a run, for records: versions of parity, Python and the packages, and the platform."""
    return {
        "parity": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": {name: version_of(name) for name in PACKAGES},
    }
