"""Fixtures that several files of tests share."""

import pytest

from parity.fixtures import subjects


@pytest.fixture(scope="module")
def bert():
    """The tiny BERT with its configuration, preprocessor and source of inputs."""
    return subjects.subject("bert", "default")
