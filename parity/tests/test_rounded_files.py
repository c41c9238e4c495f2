"""Files in half precision and integers: right files pass, and each of three kinds of fault is identified."""

import functools
import json

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from parity.check import main
from parity.fixtures.checkpoints import save_checkpoint
from parity.fixtures.controls import commands
from parity.fixtures.controls.rounding import TOOLS, to_static
from parity.judge.precision import MAX_DRIFT, drift_limit, read_precision
from parity.judge.roundings import Rounded, match_roundings, unit_in_the_last_place
from parity.judge.weights import Weight
from parity.onnx.__main__ import main as export_main

run = functools.partial(commands.run, command=main)

NAMES = {
    "int8": "dynamic int8",
    "uint8": "dynamic uint8",
    "static": "static int8",
    "int4": "int4 blocks",
    "bytes": "int8 blocks",
    "int4-half": "int4 blocks",
    "float16": "float16",
    "mixed": "mixed",
}


@pytest.mark.parametrize("kind", TOOLS)
def test_precision_is_read_from_the_file(rounded, kind):
    """The precision read matches the tool's."""
    assert read_precision(onnx.load(rounded[1](kind))).name == NAMES[kind]


@pytest.mark.parametrize("kind", TOOLS)
def test_a_right_file_passes(rounded, kind):
    """Weights, graph and the file itself are judged separately, and each is reported."""
    status, out, log = run(rounded[0], rounded[1](kind), "--json")
    result = json.loads(out)
    assert (status, result["precision"], result["graph"]) == (0, NAMES[kind], "judged")
    assert result["outputs"]["logits"]["ratio"] < 2
    drift = result["drift"]["logits"]
    assert 0 < drift["relative"] < 0.35
    assert drift["largest"] > 0
    assert 0.9 < drift["cosine"] <= 1.0000001
    assert 0.5 < drift["decisions"] <= 1
    assert f"- precision: {NAMES[kind]}{', the rest float16' if kind == 'int4-half' else ''}\n" in log
    assert "; not found: " not in log
    assert "are the roundings of the checkpoint's" in log
    assert ("clipping" in result, "of the values drawn are outside of their static range" in log) == (
        (True, True) if kind == "static" else (False, False)
    )


def spoil(path, target, choose, change):
    """Write a copy of the file with the first chosen tensor changed."""
    model = onnx.load(path)
    tensor = next(each for each in model.graph.initializer if choose(each))
    values = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(change(values.copy()).astype(values.dtype), tensor.name))
    onnx.save(model, target)
    return target


def is_scale(tensor):
    return tensor.name.endswith(("weight_scale", "_scale")) and tensor.data_type == 1 and "MatMul" in tensor.name


def is_zero_point(tensor):
    return tensor.name.endswith("zero_point") and "MatMul" in tensor.name


def is_half_matrix(tensor):
    return tensor.data_type == 10 and len(tensor.dims) == 2


def is_table(tensor):
    return len(tensor.dims) == 2 and tensor.data_type in (2, 3)


def flip_first(values):
    values.flat[0] = values.flat[0] // 2 + 60
    return values


def raise_first(values):
    values.flat[0] *= 1.002
    return values


WEIGHTS = {
    "scale": ("int8", is_scale, lambda values: values * 1.05),
    "scale-uint8": ("uint8", is_scale, lambda values: values * 1.05),
    "zero-point": ("uint8", is_zero_point, lambda values: values + 1),
    "one-integer": ("int8", is_table, flip_first),
    "static-scale": ("static", lambda tensor: tensor.name.endswith("weight_scale"), lambda values: values * 1.05),
    "int4-scale": ("int4", lambda tensor: "scale" in tensor.name, lambda values: values * 1.2),
    "bytes-scale": ("bytes", lambda tensor: "scale" in tensor.name, lambda values: values * 1.05),
    "int4-half-scale": ("int4-half", lambda tensor: "scale" in tensor.name, lambda values: values * 1.05),
    "int4-half-matrix": ("int4-half", is_half_matrix, raise_first),
    "half": ("float16", is_half_matrix, raise_first),
}


@pytest.mark.parametrize("fault", WEIGHTS)
def test_a_weight_that_is_no_rounding_is_rejected(rounded, tmp_path, fault):
    """A scale × 1.05, a zero point + 1, one integer, one half: the weight is named, with its distance in steps."""
    kind, choose, change = WEIGHTS[fault]
    file = spoil(rounded[1](kind), tmp_path / "spoiled.onnx", choose, change)
    status, out, _ = run(rounded[0], file, "--json")
    failures = json.loads(out)["failures"]
    assert status == 1
    assert "precision" in {failure["check"] for failure in failures}
    assert "steps from the checkpoint's" in json.loads(out)["cause"]


@pytest.mark.parametrize(
    ("name", "noise", "limit"), [("float16", 1e-7, 0.02), ("float16", 1e-5, 0.08192), ("dynamic int8", 1e-3, 0.95)]
)
def test_a_sensitive_model_may_drift_further(name, noise, limit):
    """In proportion to its own noise, never less than others, and never as far as an unrelated answer."""
    assert drift_limit(name, noise) == pytest.approx(limit)


@pytest.mark.parametrize("kind", ["float16", "int8"])
def test_a_right_file_of_a_sensitive_model_passes(tmp_path, monkeypatch, kind):
    """MobileNetV2's normalised convolutions add up what rounding does.

    A fault of the graph is rejected all the same; and where the graph is not judged, or less drift is asked for, so is
    the right file.
    """
    save_checkpoint(tmp_path / "model", "mobilenet-v2", "default")
    assert run("-m", tmp_path / "model", "--opset=17", "--quiet", tmp_path / "onnx", command=export_main)[0] == 0
    model = onnx.load(tmp_path / "onnx" / "model.onnx")
    del model.metadata_props[:]
    TOOLS[kind](model, tmp_path / "rounded.onnx")
    status, out, _ = run(tmp_path / "model", tmp_path / "rounded.onnx", "--json")
    assert (status, json.loads(out)["graph"]) == (0, "judged")
    strict = MAX_DRIFT[NAMES[kind]]
    assert max(each["relative"] for each in json.loads(out)["drift"].values()) > strict
    assert run(tmp_path / "model", tmp_path / "rounded.onnx", "--quiet", "--max-drift", strict)[0] == 1
    model = onnx.load(tmp_path / "rounded.onnx")
    node = next(node for node in model.graph.node if node.op_type in ("Clip", "Relu"))
    node.op_type, node.input[:] = "Identity", node.input[:1]
    del node.attribute[:]
    onnx.save(model, tmp_path / "spoiled.onnx")
    status, out, _ = run(tmp_path / "model", tmp_path / "spoiled.onnx", "--json")
    assert (status, {each["check"] for each in json.loads(out)["failures"]} >= {"ratio"}) == (1, True)
    monkeypatch.setattr("parity.onnx.rounded._obstacle", lambda twin, kind, unmatched: "an operator has no twin")
    status, out, _ = run(tmp_path / "model", tmp_path / "rounded.onnx", "--json")
    assert (status, {each["check"] for each in json.loads(out)["failures"]}) == (1, {"drift"})


@pytest.fixture(scope="module")
def convolutional(tmp_path_factory):
    """A tiny ResNet whose norms have been trained, and a function: precision → parity's file, with the norms folded."""
    directory, output, files = (tmp_path_factory.mktemp(name) for name in ("resnet", "folded", "halves"))
    save_checkpoint(directory, "resnet", "image-classification")
    options = ("-m", directory, "--feature=image-classification", "--opset=17", "--quiet", output)
    assert run(*options, command=export_main)[0] == 0

    @functools.cache
    def make(kind):
        model = onnx.load(output / "model.onnx")
        del model.metadata_props[:]
        assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
        TOOLS[kind](model, files / f"{kind}.onnx")
        return files / f"{kind}.onnx"

    return directory, make


@pytest.mark.parametrize("kind", ["int8", "float16"])
def test_a_folded_convolution_is_found(convolutional, kind):
    """Its weight is multiplied by the gain of its batch norm before it is rounded; the graph is judged too."""
    status, out, log = run(convolutional[0], convolutional[1](kind), "--json")
    assert (status, json.loads(out)["graph"]) == (0, "judged")
    assert "; not found: " not in log


def is_convolution(tensor):
    return len(tensor.dims) == 4 and tensor.data_type in (2, 3, 10)


FOLDED = {
    "scale": ("int8", lambda each: each.name.endswith("_scale") and each.data_type == 1, lambda values: values * 1.05),
    "half": ("float16", is_convolution, raise_first),
    "another": ("int8", is_convolution, lambda values: shuffle(values)),
}


@pytest.mark.parametrize("fault", FOLDED)
def test_a_folded_convolution_that_is_no_rounding_is_rejected(convolutional, tmp_path, fault):
    """The same faults as of other weights."""
    kind, choose, change = FOLDED[fault]
    file = spoil(convolutional[1](kind), tmp_path / "spoiled.onnx", choose, change)
    status, out, _ = run(convolutional[0], file, "--json", "--max-drift", "1000")
    assert status == 1
    assert "precision" in {failure["check"] for failure in json.loads(out)["failures"]}


def shuffle(values):
    return np.random.default_rng(0).permutation(values.reshape(-1)).reshape(values.shape)


def is_key(tensor):
    return tensor.name.startswith("onnx::MatMul") and len(tensor.dims) == 2 and tensor.data_type in (2, 3)


@pytest.mark.parametrize("kind", ["int8", "static"])
def test_a_weight_that_is_another_one_is_rejected(rounded, tmp_path, kind):
    """Reordered integers are no rounding of a weight, and the graph is not judged, even if drift is allowed."""
    file = spoil(rounded[1](kind), tmp_path / "spoiled.onnx", is_key, shuffle)
    status, out, _ = run(rounded[0], file, "--json", "--max-drift", "1000")
    result = json.loads(out)
    assert (status, result["graph"]) == (1, "not judged")
    assert "is the rounding of no weight, and " in result["cause"]


def test_a_constant_in_half_precision_changes_no_rule(rounded):
    """A float32 file with one such constant counts as float32."""
    model = onnx.load(rounded[1]("float16"))
    assert read_precision(model).name == "float16"
    matrices = [each for each in model.graph.initializer if each.data_type == 10]
    for tensor in matrices[1:]:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    matrices[0].CopyFrom(numpy_helper.from_array(np.ones(3, np.float16), matrices[0].name))
    assert read_precision(model).name == "float32"


def test_a_file_whose_answer_is_not_finite_is_rejected(rounded, tmp_path):
    """Halves end at 65,504: a table of 60,000 overflows in the sum after it, however large a drift is allowed."""
    file = spoil(rounded[1]("float16"), tmp_path / "spoiled.onnx", is_half_matrix, lambda values: values * 0 + 6e4)
    status, out, _ = run(rounded[0], file, "--json", "--max-drift", "1e9")
    assert status == 1
    assert "nonfinite" in {failure["check"] for failure in json.loads(out)["failures"]}


def test_what_a_converter_clamps_is_excused():
    """Numbers too small or too large for a half may be the nearest that the converter allows; others may not."""
    values = np.array([1e-7, -1e-7, 1e4, 0.5, *[8192] * 60])
    tensor = Rounded("t", values, unit_in_the_last_place(values, "float16"), half="float16")

    def error(*checkpoint):
        weight = Weight(("w",), np.array([*checkpoint, *[8192] * 60], np.float32), needed=True)
        ((match,), unmatched) = match_roundings([tensor], [weight])
        assert unmatched == []
        return match.error

    assert error(2e-9, -3e-8, 1.7e4, 0.5) == 0
    assert error(2e-9, -3e-8, 0.9e4, 0.5) > 1
    assert error(2e-9, -3e-8, 1e4, 0.5 + 2**-11) == 1


def is_bias(tensor):
    return tensor.name.endswith("output_layer_norm.bias") and tensor.data_type == 1


def raise_bias(values):
    return values * 1.0001


@pytest.mark.parametrize("kind", ["int8", "uint8", "int4"])
def test_a_fault_of_the_graph_is_rejected(rounded, tmp_path, kind):
    """One float bias × 1.0001: the twin's ratio fails, far below what drift detects."""
    file = spoil(rounded[1](kind), tmp_path / "spoiled.onnx", is_bias, raise_bias)
    status, out, _ = run(rounded[0], file, "--json")
    checks = {failure["check"] for failure in json.loads(out)["failures"]}
    assert status == 1
    assert "ratio" in checks
    assert "drift" not in checks


def swap_softmax_axis(model):
    next(node for node in model.graph.node if node.op_type == "Softmax").attribute[0].i = 1


@pytest.mark.parametrize("kind", ["int8", "float16", "static", "bytes", "int4-half"])
def test_a_wrong_operator_is_rejected(rounded, tmp_path, kind):
    """A softmax along another axis: the twin's ratio fails."""
    model = onnx.load(rounded[1](kind))
    swap_softmax_axis(model)
    onnx.save(model, tmp_path / "spoiled.onnx")
    status, out, _ = run(rounded[0], tmp_path / "spoiled.onnx", "--json")
    assert status == 1
    assert "ratio" in {failure["check"] for failure in json.loads(out)["failures"]}


def test_drift_is_bounded(rounded):
    """--max-drift: a right integer file drifts by more than a thousandth."""
    status, out, _ = run(rounded[0], rounded[1]("int8"), "--max-drift", "0.001", "--json")
    (failure,) = json.loads(out)["failures"]
    assert (status, failure["check"]) == (1, "drift")
    assert "should be at most 0.001 (--max-drift)" in failure["message"]


def is_range(tensor):
    return tensor.name.endswith("vocab_layer_norm/LayerNormalization_output_0_scale") and not tensor.dims


def test_a_wrong_range_of_activations_drifts(rounded, tmp_path):
    """A static range a hundred times too narrow clips activations: the file drifts, weights and twin are right."""
    file = spoil(rounded[1]("static"), tmp_path / "spoiled.onnx", is_range, lambda values: values / 100)
    status, out, _ = run(rounded[0], file, "--json")
    result = json.loads(out)
    assert status == 1
    assert {failure["check"] for failure in result["failures"]} == {"drift"}
    assert result["clipping"]["tensor"].endswith("vocab_layer_norm/LayerNormalization_output_0")
    assert result["clipping"]["most"] > 0.5


def test_values_are_counted_where_they_leave_their_range(rounded):
    """By hand: of four values two are outside of what the integers reach, one of them by less than half a step."""
    from onnx import TensorProto, helper

    from parity.judge.clipping import Clipping, count_clipping
    from parity.judge.twins import Twin

    scale, zero = (numpy_helper.from_array(np.array(v, t), n) for v, t, n in ((0.5, "f4", "s"), (10, "u1", "z")))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", "y")]
    nodes = [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"])]
    nodes.append(helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]))
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [scale, zero])
    twin = Twin(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))
    assert twin.ranges == {"x": (-5.25, 122.75)}
    ranges, model, clipping = twin.ranges, twin.build({}), Clipping()
    count_clipping(model, ranges)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]

    def run(inputs):
        return dict(zip(names, session.run(names, inputs), strict=True))

    x = np.array([-6, -5.2, 122.7, 200], np.float32)
    assert [*clipping.count(run)({"x": x})] == ["y"]
    assert clipping.as_json() == {"share": 0.5, "most": 0.5, "tensor": "x"}
    assert Clipping().as_json() == {}


def test_operators_without_a_twin_are_told(rounded, tmp_path):
    """QLinearMatMul is several operators at once: the graph is not judged, which is said, in --json too."""
    from onnxruntime.quantization import QuantFormat

    model = onnx.load(rounded[1]("source"))
    to_static(model, tmp_path / "operators.onnx", quant_format=QuantFormat.QOperator)
    status, out, log = run(rounded[0], tmp_path / "operators.onnx", "--json")
    result = json.loads(out)
    assert (status, result["graph"], "ratio" in result["outputs"]["logits"]) == (0, "not judged", False)
    assert "- graph: not judged, QGemm, QLinearAdd, QLinearMatMul" in log
    assert "the graph not judged" in result["rule"]


def test_bfloat16_is_recognised_and_not_passed(rounded, tmp_path):
    """This runtime has no bfloat16 arithmetic on the CPU: the log says so, and the file does not pass."""
    model = onnx.load(rounded[1]("float16"))
    text = model.SerializeToString()
    model = onnx.ModelProto.FromString(text)
    for tensor in model.graph.initializer:
        if tensor.data_type == 10:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.raw_data = (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
            tensor.data_type = 16
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i == 10:
                attribute.i = 16
            if attribute.HasField("t") and attribute.t.data_type == 10:
                values = numpy_helper.to_array(attribute.t).astype(np.float32)
                attribute.t.raw_data = (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
                attribute.t.data_type = 16
    for value in [*model.graph.input, *model.graph.output]:
        if value.type.tensor_type.elem_type == 10:
            value.type.tensor_type.elem_type = 16
    del model.graph.value_info[:]
    onnx.save(model, tmp_path / "bfloat16.onnx")
    status, out, err = run(rounded[0], tmp_path / "bfloat16.onnx", "--json")
    assert (status, json.loads(out)["precision"]) == (1, "bfloat16")
    assert "microsoft/onnxruntime#28768" in err


def test_a_file_of_ours_that_a_tool_has_rounded_passes(rounded, tmp_path):
    """A half-precision file with parity's metadata still gets halves as inputs."""
    model = onnx.load(rounded[1]("float16"))
    model.metadata_props.add(key="parity", value="0.1.0")
    onnx.save(model, tmp_path / "ours.onnx")
    assert run(rounded[0], tmp_path / "ours.onnx", "--feature", "masked-lm", "--quiet") == (0, "", "")
