"""A TorchScript file answers like the model at the traced shape, and at other shapes as declared."""

import pytest

from parity.fixtures import properties, sizes, subjects
from parity.fixtures.trace_verdicts import differences, is_proven
from parity.registry import architecture

pytestmark = pytest.mark.cells(formats=("torchscript",))


@pytest.fixture(scope="session")
def trace_and_model(cell, subject, tmp_path_factory):
    """The cell's trace, from its file, and the model that was traced."""
    path = tmp_path_factory.mktemp(cell.id) / "model.pt"
    yield subjects.trace(subject, path, cell.attention)
    path.unlink(missing_ok=True)
    subjects.free_traces()


def traced_axes(cell):
    """The axes that are declared not to generalise in the cell's trace, by name."""
    facts = {"attention": cell.attention, "exporter": cell.exporter, "dtype": cell.dtype}
    return architecture(cell.architecture).traced_axes(cell.feature, **facts)


def test_trace(trace_and_model):
    """At the traced shape the file answers like the eager model, on its example and another, by the error ratio."""
    assert is_proven(trace_and_model[0])


def test_trace_verdicts(cell, subject, trace_and_model, measurements):
    """At other sizes each axis generalises or raises as declared, and so do all axes together."""
    from parity.torchscript import verdict

    verdicts = verdict(*trace_and_model, preprocessor=subject.preprocessor, onnx_config=subject.onnx_config)
    measurements(verdicts=[each.as_json() for each in verdicts])
    assert set(trace_and_model[0].sizes) <= {each.axis for each in verdicts}
    assert differences(verdicts, traced_axes(cell)) == []


@pytest.mark.cells(formats=("torchscript",), attention=("eager",))
def test_trace_at_drawn_sizes(cell, subject, trace_and_model):
    """At sizes that hypothesis draws for the generalising axes, padded or not, the trace answers like the model."""
    from parity.torchscript.verdicts import TrialSetup, trial

    setup = TrialSetup.for_trace(*trace_and_model, preprocessor=subject.preprocessor, onnx_config=subject.onnx_config)
    fixed = {axis: trace_and_model[0].sizes[axis] for axis in traced_axes(cell)}

    def judge(example):
        result = trial(
            setup, setup.source.resize({**example.sizes, **fixed}, padding=example.padding, seed=example.seed)
        )
        assert result.outcome == "right", f"{result.sample}: {result.text}"

    assert properties.check_property(sizes.examples(setup.source, setup.longest), judge)
