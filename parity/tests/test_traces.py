"""Exports with shared traces write the same files as separate exports, and only for their own model."""

from types import SimpleNamespace

import pytest

from parity.architectures.gpt2 import GPT2OnnxConfig
from parity.environment import at_least
from parity.errors import ExportError
from parity.fixtures.checkpoints import tiny_model
from parity.fixtures.preprocessors import preprocessor
from parity.onnx import export
from parity.onnx.convert import export_with
from parity.onnx.shared_traces import SharedTraces, _exporter

# gpt2 masks with a triangle, which has its own operator from opset 14 on, as sdpa has.
OPSETS = (11, 13, 14, 20)
# transformers 4 keeps the attention that the model was built with, and sdpa needs opset 14.
ATTENTION = "sdpa" if at_least("transformers", "5") else "eager"


@pytest.fixture(scope="module")
def gpt2():
    """A tiny model with a choice of attention implementations, its configuration and its traces."""
    model = tiny_model("gpt2", attention=ATTENTION)
    config = GPT2OnnxConfig(model.config)
    return model, config, SharedTraces(model, config)


@pytest.fixture
def trace_calls(monkeypatch):
    """Counts the traces of the exporter."""
    calls, exporter = [], _exporter()
    trace = exporter._trace_and_get_graph_from_model

    def count_and_trace(traceable, arguments):
        calls.append(traceable)
        return trace(traceable, arguments)

    monkeypatch.setattr(exporter, "_trace_and_get_graph_from_model", count_and_trace)
    return calls


def exporter(traces):
    """An exporter with these traces."""
    from parity.onnx.exporter import TraceExporter

    return TraceExporter(traces=traces)


def test_shared_traces_give_the_same_files(gpt2, trace_calls, tmp_path):
    """Four opsets need two traces, one with the operators of the lower opsets, and the files are equal."""
    model, config, traces = gpt2
    shared = {opset: tmp_path / f"{opset}.onnx" for opset in OPSETS}
    for opset, path in shared.items():
        export_with(exporter(traces), preprocessor("gpt2"), model, config, opset, path)
    assert len(trace_calls) == 2
    for opset, path in shared.items():
        own = tmp_path / "alone.onnx"
        export(preprocessor("gpt2"), model, config, opset, own)
        assert own.read_bytes() == path.read_bytes()
    assert len(trace_calls) == 2 + len(OPSETS)


def test_a_foreign_graph_is_seen(gpt2, tmp_path):
    """The compared bytes distinguish a trace of a slightly different model."""
    model, config, _ = gpt2
    other, traces = tiny_model("gpt2", attention=ATTENTION), SharedTraces(model, config)
    other.h[1].ln_2.eps *= 2
    theirs = SharedTraces(other, config)
    export_with(exporter(theirs), preprocessor("gpt2"), other, config, 17, tmp_path / "theirs.onnx")
    traces._graphs.update(theirs._graphs)
    export_with(exporter(traces), preprocessor("gpt2"), model, config, 17, tmp_path / "ours.onnx")
    export(preprocessor("gpt2"), model, config, 17, tmp_path / "alone.onnx")
    assert (tmp_path / "ours.onnx").read_bytes() == (tmp_path / "theirs.onnx").read_bytes()
    assert (tmp_path / "ours.onnx").read_bytes() != (tmp_path / "alone.onnx").read_bytes()


def test_other_inputs_are_traced_anew(gpt2, trace_calls, tmp_path, monkeypatch):
    """A trace is not reused for inputs of other sizes."""
    model, config, _ = gpt2
    traces = SharedTraces(model, config)
    export_with(exporter(traces), preprocessor("gpt2"), model, config, 17, tmp_path / "model.onnx")
    monkeypatch.setattr(type(config), "default_batch_size", 3)
    export_with(exporter(traces), preprocessor("gpt2"), model, config, 17, tmp_path / "model.onnx")
    assert len(trace_calls) == 2


def test_traces_are_those_of_one_model(gpt2, tmp_path):
    """Another model, even an equal one, does not get this graph."""
    _, config, traces = gpt2
    with pytest.raises(ValueError, match="one GPT2Model and its GPT2OnnxConfig"):
        export_with(exporter(traces), preprocessor("gpt2"), tiny_model("gpt2"), config, 17, tmp_path / "model.onnx")


def test_a_trace_that_fails_is_not_kept(gpt2, trace_calls, tmp_path, monkeypatch):
    """The next export traces again, and the exporter is restored."""
    model, config, _ = gpt2
    traces, before = SharedTraces(model, config), _exporter()._trace_and_get_graph_from_model

    def fail(*arguments, **options):
        raise RuntimeError("out of paper")

    with monkeypatch.context() as broken:
        broken.setattr(model.h[1].attn, "forward", fail)
        with pytest.raises(ExportError, match="out of paper"):
            export_with(exporter(traces), preprocessor("gpt2"), model, config, 17, tmp_path / "model.onnx")
    assert _exporter()._trace_and_get_graph_from_model is before
    export_with(exporter(traces), preprocessor("gpt2"), model, config, 17, tmp_path / "model.onnx")
    assert len(trace_calls) == 2


def test_a_row_that_sees_nothing_is_zero_in_an_older_exporter_too(monkeypatch):
    """torch before 2.9 writes a boolean mask that gives NaN in such a row; other rows and masks keep their answers."""
    import torch

    from parity.traceable import zeros_where_nothing_is_seen

    functional = torch.nn.functional

    def attend(query, key, value, attn_mask=None, scale=None):
        scores = query @ key.transpose(-1, -2)
        if attn_mask is not None:
            masks = attn_mask.dtype is torch.bool
            scores = scores.masked_fill(~attn_mask, -torch.inf) if masks else scores + attn_mask
        return scores.softmax(-1) @ value

    monkeypatch.setattr(functional, "scaled_dot_product_attention", attend)
    states = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[True, False, True], [False, False, False], [False, True, False]]).expand(2, 3, 3)
    before = functional.scaled_dot_product_attention(states, states, states, attn_mask=mask, scale=1.0)
    assert before[:, 1].isnan().all(), "the control"
    with zeros_where_nothing_is_seen():
        after = functional.scaled_dot_product_attention(states, states, states, attn_mask=mask, scale=1.0)
        plain = functional.scaled_dot_product_attention(states, states, states)
        added = functional.scaled_dot_product_attention(states, states, states, torch.zeros(3, 3))
    assert (after[:, 1] == 0).all()
    assert after[:, [0, 2]].equal(before[:, [0, 2]])
    assert plain.equal(attend(states, states, states))
    assert added.equal(attend(states, states, states, torch.zeros(3, 3)))
    assert functional.scaled_dot_product_attention is attend


@pytest.mark.parametrize(("minimum", "is_patched"), [("2.8", True), ("2.9", False)])
def test_the_release_of_torch_decides_about_rows_that_see_nothing(monkeypatch, minimum, is_patched):
    """The patch applies only before 2.9, and torch's own function is restored."""
    import torch
    from packaging.version import Version

    from parity.onnx import exporter

    def is_at_least(package, version):
        return Version(minimum) >= Version(version)

    traceable = SimpleNamespace(model=torch.nn.Identity())
    own = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(exporter, "at_least", is_at_least)
    with exporter.TraceExporter()._patches(traceable, (), 17):
        assert (torch.nn.functional.scaled_dot_product_attention is not own) is is_patched
    assert torch.nn.functional.scaled_dot_product_attention is own
