"""Environments that differ from this one in one package: list its releases and install one."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from packaging.version import Version

from parity.errors import EnvironmentGap, UsageError
from parity.reports.pages.support import ROOT

HOME = Path(".tox/kept-releases")
# Printed when a run of many parts is interrupted.
KEPT = "all results are kept, and the same command continues from there"
_LISTED = re.compile(r"^Available versions: (.+)$", re.MULTILINE)
# Words in pip's output when the index does not answer.
_UNREACHABLE = ("Retrying", "connection", "resolve")


@dataclass(frozen=True)
class Release:
    """One version of one package, in an environment that is otherwise that of this process."""

    package: str
    version: str

    @property
    def name(self) -> str:
        return f"{self.package}-{self.version}"

    def environment(self, home: Path) -> Path:
        """The Python of its environment, which is created if it does not exist.

        Raises:
            subprocess.CalledProcessError: the release cannot be installed.
        """
        place = home / self.name
        python = place / "bin" / "python"
        if not (place / "ready").exists():
            subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--clear", place], check=True)
            (site,) = place.glob("lib/python*/site-packages")
            beneath = sysconfig.get_path("purelib")
            (site / "beneath.pth").write_text(f"import site; site.addsitedir({beneath!r})\n", encoding="utf-8")
            install: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--no-warn-script-location"]
            requirement = f"{self.package}=={self.version}"
            subprocess.run([*install, requirement], check=True, env=_variables(), capture_output=True, text=True)
            (place / "ready").write_text("", encoding="utf-8")
        return python


def _variables() -> dict[str, str]:
    """Those of this process, without constraints, which pin another release; a file of pip's settings may name some."""
    return {**os.environ, "PIP_CONSTRAINT": os.devnull}


def list_releases(package: str) -> list[str]:
    """The releases that the package index lists for this Python and platform, the oldest first.

    Raises:
        UsageError: it lists none of that name.
        EnvironmentGap: it cannot be reached, or pip is not installed.
    """
    command = [sys.executable, "-m", "pip", "index", "versions", package, "--pre", "--retries", "1"]
    process = subprocess.run(command, capture_output=True, text=True, env=_variables())
    match = _LISTED.search(process.stdout)
    if match:
        # Without local builds such as torch's +cpu: pip chooses the build of a version.
        return sorted({Version(version).public for version in match[1].split(", ")}, key=Version)
    if "No module named pip" in process.stderr:
        raise EnvironmentGap(f"{package}: its releases are listed by pip, which is not installed here: install it")
    if any(word in process.stderr for word in _UNREACHABLE):
        raise EnvironmentGap(f"{package}: the package index cannot be reached; try again with a network")
    raise UsageError(f"{package}: the package index lists no release of it; is the name right, and is there an index?")


def code() -> str:
    """A digest of the code of the library, the declarations and the suite."""
    digest = hashlib.sha256()
    for folder in ("parity", "architectures", "fixtures"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]
