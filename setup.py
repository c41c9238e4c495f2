"""Where the packages are: behind the links in parity/, or in folders of their own where links are no links."""

from pathlib import Path

from setuptools import setup

LINKS = ("architectures", "fixtures", "reports")
linked = all((Path(__file__).parent / "parity" / name).is_dir() for name in LINKS)
folders = {"": "."} if linked else {"parity": "parity", **{f"parity.{name}": name for name in LINKS}}
setup(package_dir=folders)
