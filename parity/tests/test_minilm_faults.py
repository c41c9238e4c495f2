"""Faults of the trained MiniLM's file that no short text shows: each is rejected, by its weights and by its values."""

import re

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from parity.check import main
from parity.fixtures import minilm
from parity.fixtures.controls import commands
from parity.onnx.__main__ import main as export_main


def run(*arguments):
    """Exit status, standard output and standard error of `parity check`."""
    return commands.run(*arguments, command=main)


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """MiniLM's directory of an export, and the log of that."""
    output = tmp_path_factory.mktemp("minilm")
    status, log, _ = commands.run("-m", minilm.directory(), output, command=export_main)
    assert status == 0
    return output, log
