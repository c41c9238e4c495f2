"""Every fact about the machine and the installed packages, asked in one place."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform

from parity import __version__

PACKAGES = ("torch", "transformers", "onnx", "onnxruntime", "numpy", "tokenizers", "safetensors")


@functools.cache
def version_of(package: str) -> str | None:
    """The installed version of a distribution, read from its metadata without importing it; None when absent."""
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
    """Whether the installed versions satisfy requirements joined by `;`, such as `transformers>=5; torch<2.14`."""
    from packaging.requirements import Requirement

    wanted = [Requirement(text) for text in requirements.split(";")]
    return all(r.specifier.contains(version_of(r.name) or "0", prereleases=True) for r in wanted)


def tensorflow_gap() -> str | None:
    """Why TensorFlow weights cannot be read here and what to install; None where they can."""
    if at_least("transformers", "5"):
        return (
            f"transformers {version_of('transformers')} reads no TensorFlow weights; install transformers<5 with"
            " tensorflow-cpu and tf-keras, or convert them once there with load and save_pretrained"
        )
    if version_of("tensorflow") is None and version_of("tensorflow-cpu") is None:
        return "TensorFlow is not installed; pip install tensorflow-cpu tf-keras"
    return None


def threads() -> int:
    """Threads for each torch or ONNX Runtime call: 0 lets them choose. The suite's workers set PARITY_THREADS=1."""
    return int(os.environ.get("PARITY_THREADS", "0"))


def describe() -> dict:
    """The environment of a run, for records: versions of parity, Python and the packages, and the platform."""
    return {
        "parity": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": {name: version_of(name) for name in PACKAGES},
    }
