"""Configurations that differ from the tiny checkpoints are exported correctly, or refused as declared."""

import pytest

from parity.fixtures import configurations


@pytest.mark.cells(varied=True, every_opset=False, nightly=False)
def test_drawn_configurations(cell, measurements):
    """The file of each configuration that hypothesis draws is right and its trace is proven, or it is refused."""
    verdicts = configurations.judge_drawn(cell.architecture, cell.feature, cell.opset)
    measurements(configurations=[{"changes": dict(changes), "refused": not verdict} for changes, verdict in verdicts])
    assert verdicts
    assert all(verdict.ratios() for _, verdict in verdicts if verdict)
