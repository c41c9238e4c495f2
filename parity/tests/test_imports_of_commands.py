"""Garbage collection while a command imports torch and transformers."""

import gc

import pytest

from parity import opening


@pytest.fixture
def collector():
    """The collector as it is outside of a command."""
    enabled, before = gc.isenabled(), gc.get_freeze_count()
    yield
    (gc.enable if enabled else gc.disable)()
    if not before:
        gc.unfreeze()


@pytest.mark.parametrize("enabled", [True, False])
def test_nothing_is_collected_during_the_imports(collector, enabled):
    """Afterwards the collector is as it was, and leaves alone what the imports made."""
    (gc.enable if enabled else gc.disable)()
    before = gc.get_freeze_count()
    with opening.without_collections():
        assert not gc.isenabled()
        objects = [[] for _ in range(1000)]
    assert gc.isenabled() == enabled
    assert gc.get_freeze_count() >= before + len(objects)


def test_an_import_that_fails_leaves_the_collector_as_it_was(collector):
    """The error reaches the command."""
    gc.enable()
    with pytest.raises(ImportError, match="no torch"), opening.without_collections():
        raise ImportError("no torch")
    assert gc.isenabled()
