"""Fixtures shared by several test files."""

import pytest

from parity.fixtures import subjects
from parity.fixtures.checkpoints import tiny_model


@pytest.fixture(scope="module")
def bert():
    """The tiny BERT with its configuration, preprocessor and source of inputs."""
    return subjects.subject("bert", "default")


@pytest.fixture(scope="module")
def bert_model():
    """A tiny BertModel."""
    return tiny_model("bert")
