"""Emulated processors: a setting without effect is reported as not applied, and a red run is reported."""

import os

import pytest

from parity.reports.lanes import processors
from parity.reports.lanes.processors import PROCESSORS, CannotEmulate, Processor, emulate, main


def find_processor(name):
    return next(each for each in PROCESSORS if each.name == name)


@pytest.fixture(autouse=True)
def own(monkeypatch):
    """This processor's own kernels, whatever settings this run has."""
    for name in {name for each in PROCESSORS for name in each.settings} - {"PARITY_THREADS"} | {"LD_PRELOAD"}:
        monkeypatch.delenv(name, raising=False)
    processors._own_digests.cache_clear()
    yield
    processors._own_digests.cache_clear()


def test_the_weak_one_rounds_otherwise():
    """torch, oneDNN and MKL use other kernels, and the environment of this process stays."""
    before = dict(os.environ)
    with emulate(find_processor("weak")) as (_, moved):
        assert {"linear", "softmax"} & set(moved)
    assert dict(os.environ) == before


def test_what_changes_nothing_is_not_applied():
    """A variable that no library knows does not emulate a processor."""
    with pytest.raises(CannotEmulate, match="changes no bit"), emulate(Processor("x", "", {"NO_SUCH_SETTING": "1"})):
        pass


def test_without_a_compiler_the_vendor_stays(monkeypatch):
    """The stub has to be compiled: the message names what is missing."""
    monkeypatch.setattr(processors.shutil, "which", lambda name: None)
    with pytest.raises(CannotEmulate, match="C compiler"), emulate(find_processor("vendor")):
        pass


@pytest.mark.parametrize(("code", "status", "outcome"), [("pass", 0, "green"), ("assert False", 1, "red")])
def test_the_outcome_is_told(pytester, monkeypatch, capfd, code, status, outcome):
    """Each run has the requested environment; a failing run gives exit status 1."""
    pytester.makepyfile(
        test_here=f"""
        import os
        def test_here():
            assert os.environ["PARITY_THREADS"] == "2"
            {code}
        """
    )
    monkeypatch.setattr(processors, "TESTS", ((),))
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:cacheprovider -p no:xdist --override-ini=addopts=")
    own = processors.subprocess.run
    monkeypatch.setattr(
        processors.subprocess, "run", lambda args, **more: own([a for a in args if a not in ("-n", "auto")], **more)
    )
    assert main(["--only", "threads"]) == status
    assert f"threads   {outcome}" in capfd.readouterr().out
