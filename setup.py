"""Where the packages are: behind the links in parity/, or in folders of their own where links are no links."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

LINKS = ("architectures", "fixtures", "reports")
linked = all((Path(__file__).parent / "parity" / name).is_dir() for name in LINKS)
folders = {"": "."} if linked else {"parity": "parity", **{f"parity.{name}": name for name in LINKS}}
# What is wrong on purpose serves the tests of this repository alone.
OWN = {
    "parity.fixtures": {"cache_faults", "faults", "stand_in", "trace_specimens"},
    "parity.reports": {"specimens"},
}


class Build(build_py):
    """Leaves out unit tests and what only they need; the tests of the matrix are what others run."""

    def find_package_modules(self, package, package_dir):
        found = super().find_package_modules(package, package_dir)
        return [
            each for each in found if package not in OWN or not (each[1].startswith("test_") or each[1] in OWN[package])
        ]


setup(package_dir=folders, cmdclass={"build_py": Build})
