"""Locate the packages: behind the links in parity/, or in separate folders if the links are plain files."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

LINKS = ("architectures", "fixtures", "reports")
linked = all((Path(__file__).parent / "parity" / name).is_dir() for name in LINKS)
folders = {"": "."} if linked else {"parity": "parity", **{f"parity.{name}": name for name in LINKS}}
# Packages with modules for users and unit tests next to them.
WITH_UNIT_TESTS = ("parity.fixtures", "parity.reports")


class Build(build_py):
    """Omits unit tests; the wheel needs the tests of the matrix."""

    def find_package_modules(self, package, package_dir):
        found = super().find_package_modules(package, package_dir)
        unit_tests = package in WITH_UNIT_TESTS
        return [each for each in found if not (unit_tests and each[1].startswith("test_"))]


setup(package_dir=folders, cmdclass={"build_py": Build})
