"""Weights that are written into a file one at a time: the file is, byte for byte, the one that torch writes."""

import contextlib

import pytest

from parity.fixtures import subjects

CELLS = [
    ("bert", "default", 17),
    ("gpt2", "causal-lm", 13),
    ("t5", "seq2seq-lm-with-past", 17),
    ("resnet", "default", 11),
]


def export(architecture, feature, opset, path):
    from parity.onnx import export as export_model

    subject = subjects.subject(architecture, feature)
    export_model(subject.source.preprocessor, subject.fresh_model(), subject.onnx_config, opset, path)
    return path.read_bytes()


@pytest.mark.parametrize(("architecture", "feature", "opset"), CELLS)
def test_the_file_is_the_one_that_torch_writes(architecture, feature, opset, tmp_path, monkeypatch):
    """Every byte is the same, although torch gets a message without weights."""
    from parity.onnx import deferred

    own, sizes = deferred.insert_weights, []

    def insert(path, weights):
        sizes.append((path.stat().st_size, sum(w.numel() * w.element_size() for w in weights.values())))
        own(path, weights)

    monkeypatch.setattr(deferred, "insert_weights", insert)
    whole = export(architecture, feature, opset, tmp_path / "whole.onnx")
    assert not sizes
    monkeypatch.setattr(deferred, "SMALLEST", 0)
    assert export(architecture, feature, opset, tmp_path / "parts.onnx") == whole
    ((without, weights),) = sizes
    # The control: the message that torch wrote has none of the weights.
    assert weights > 0.9 * len(whole) - without
    assert without < len(whole) - 0.9 * weights


@pytest.mark.parametrize(("architecture", "feature", "opset"), CELLS)
def test_shapes_need_no_weights(architecture, feature, opset, tmp_path, monkeypatch):
    """Every byte is the same, although the inference of shapes gets no large weight."""
    import torch

    from parity.onnx import exporter

    own, seen = torch._C._jit_pass_onnx_graph_shape_type_inference, []

    def infer(graph, parameters, *arguments):
        seen.append(sum(weight.numel() * weight.element_size() for weight in parameters.values()))
        return own(graph, parameters, *arguments)

    monkeypatch.setattr(torch._C, "_jit_pass_onnx_graph_shape_type_inference", infer)
    without = export(architecture, feature, opset, tmp_path / "without.onnx")
    small = max(seen)
    # The control: without the patch it gets much more.
    monkeypatch.setattr(exporter, "shapes_without_weights", contextlib.nullcontext)
    assert export(architecture, feature, opset, tmp_path / "whole.onnx") == without
    assert max(seen) > 10 * small


def test_torch_is_as_it_was(tmp_path, monkeypatch):
    """The patches are undone after an export, also after one that fails."""
    import torch

    from parity.errors import ExportError
    from parity.onnx import deferred

    own, infer = torch._C.Graph._export_onnx, torch._C._jit_pass_onnx_graph_shape_type_inference
    monkeypatch.setattr(deferred, "SMALLEST", 0)
    export("bert", "default", 17, tmp_path / "model.onnx")
    assert torch._C.Graph._export_onnx is own
    assert torch._C._jit_pass_onnx_graph_shape_type_inference is infer

    def fail(*arguments):
        raise RuntimeError("no")

    monkeypatch.setattr(torch._C.Graph, "_export_onnx", fail)
    with pytest.raises(ExportError):
        export("bert", "default", 17, tmp_path / "other.onnx")
    assert torch._C.Graph._export_onnx is fail
    assert torch._C._jit_pass_onnx_graph_shape_type_inference is infer


@pytest.mark.parametrize("length", [0, 1, 127, 128, 16384, 2**31 - 1])
def test_fields_begin_as_protocol_buffers_say(length):
    """The number of the field and the length of its value, seven bits a byte; the reader of files reads them back."""
    from parity.judge.stored import _varint
    from parity.onnx.deferred import _field

    content = _field(5, length)
    tag, place = _varint(content, 0)
    assert (tag >> 3, tag & 7) == (5, 2)
    assert _varint(content, place) == (length, len(content))


@pytest.mark.parametrize(("architecture", "feature", "opset"), CELLS)
def test_a_file_read_in_parts_is_the_same_message(architecture, feature, opset, tmp_path, monkeypatch):
    """Every field is the same for parts of any size, with the values that the message lacks; a truncated file is
    refused."""
    import onnx

    from parity.judge import stored

    path = tmp_path / "model.onnx"
    export(architecture, feature, opset, path)
    whole = onnx.load(path)
    monkeypatch.setattr(stored, "_IN_PARTS_FROM", 0)
    for size, are_left_out in ((1, True), (1000, True), (1 << 20, False)):
        monkeypatch.setattr(stored, "_BIG", size)
        monkeypatch.setattr(stored, "_LARGE", size)
        model, values = stored.read_model(path)
        assert bool(values) == are_left_out
        # The control: without them the message is not equal.
        assert (model == whole) != are_left_out
        for tensor in model.graph.initializer:
            if tensor.name in values:
                assert not tensor.HasField("raw_data")
                tensor.raw_data = values[tensor.name].tobytes()
        assert model == whole


def test_duplicates_are_found_among_values_that_are_read_apart(tmp_path, monkeypatch):
    """Two equal weights are found whether the message has their values or not, and two that differ are none."""
    import numpy as np
    import onnx

    from parity.judge import contract, stored
    from parity.judge.findings import failures

    path, values = tmp_path / "model.onnx", np.arange(1000, dtype=np.float32)
    for size in (1 << 20, 64):
        monkeypatch.setattr(stored, "_IN_PARTS_FROM", 0)
        monkeypatch.setattr(stored, "_BIG", size)
        monkeypatch.setattr(stored, "_LARGE", size)
        for other, twice in ((values, True), (np.append(values[:-1], np.float32(0)), False)):
            tensors = [onnx.numpy_helper.from_array(each, name) for each, name in ((values, "a"), (other, "b"))]
            output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1000])
            graph = onnx.helper.make_graph(
                [onnx.helper.make_node("Add", ["a", "b"], ["y"])], "g", [], [output], tensors
            )
            onnx.save(onnx.helper.make_model(graph), path)
            found = {finding.check for finding in failures(contract.read(path).flaws)}
            assert ("duplicates" in found) == twice


@pytest.mark.parametrize(("architecture", "feature", "opset"), CELLS)
def test_a_truncated_file_is_refused(architecture, feature, opset, tmp_path, monkeypatch):
    """Wherever it ends, whether its values are read apart or not."""
    from parity.errors import ExportError
    from parity.judge import contract, stored

    path = tmp_path / "model.onnx"
    content = export(architecture, feature, opset, path)
    monkeypatch.setattr(stored, "_IN_PARTS_FROM", 0)
    contract.read(path)
    monkeypatch.setattr(stored, "_BIG", 1000)
    monkeypatch.setattr(stored, "_LARGE", 1000)
    contract.read(path)
    for length in (len(content) - 1, len(content) // 2, 20):
        path.write_bytes(content[:length])
        with pytest.raises(ExportError, match="is not a readable ONNX file"):
            contract.read(path)
