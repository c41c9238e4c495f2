"""What a file in integers makes of activations, and in which forms it can hold its weights."""

import functools
import json

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from parity.check import main
from parity.fixtures.checkpoints import save_checkpoint
from parity.fixtures.controls import commands
from parity.fixtures.controls.rounding import to_static
from parity.judge.precision import read_precision
from parity.judge.roundings import Rounded, match_roundings
from parity.judge.twins import Twin
from parity.judge.weights import Weight

run = functools.partial(commands.run, command=main)


def judge(rounded, model, path, *options):
    onnx.save(model, path)
    status, out, log = run(rounded[0], path, "--json", *options)
    return status, json.loads(out), log


def own_constant(model, node, place, change):
    """Give one input of a node a constant of its own, changed."""
    tensor = next(each for each in model.graph.initializer if each.name == node.input[place])
    values = numpy_helper.to_array(tensor)
    model.graph.initializer.append(numpy_helper.from_array(change(values).astype(values.dtype), "own"))
    node.input[place] = "own"


def of_activations(model):
    """The DequantizeLinear of the first activation."""
    quantised = {node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    return next(n for n in model.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in quantised)


def exchange_scales(model):
    """Multiply a product of integers by the scale of another activation."""
    first, second, *_ = (node for node in model.graph.node if node.op_type == "DynamicQuantizeLinear")
    next(node for node in model.graph.node if second.output[1] in node.input[:1]).input[0] = first.output[1]


ACTIVATIONS = {
    "scale": ("static", lambda model: own_constant(model, of_activations(model), 1, lambda scale: scale * 1.05)),
    "zero-point": ("static", lambda model: own_constant(model, of_activations(model), 2, lambda zero: zero + 1)),
    "exchanged": ("int8", exchange_scales),
    "same-scale": ("static", lambda model: own_constant(model, of_activations(model), 1, lambda scale: scale)),
}


@pytest.mark.parametrize("fault", ACTIVATIONS)
def test_activations_have_the_scale_that_they_were_quantised_by(rounded, tmp_path, fault):
    """Another one is a fault of the graph, however small the drift; an equal one of another name is none."""
    kind, spoil = ACTIVATIONS[fault]
    model = onnx.load(rounded[1](kind))
    spoil(model)
    status, result, _ = judge(rounded, model, tmp_path / "spoiled.onnx", "--max-drift", "1000")
    right = fault == "same-scale"
    assert (status, result["graph"]) == (0 if right else 1, "judged")
    assert ("ratio" in {failure["check"] for failure in result["failures"]}) is not right


def to_constants(model):
    """Put every initializer into a Constant node."""
    nodes = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in model.graph.initializer]
    nodes += [onnx.NodeProto.FromString(node.SerializeToString()) for node in model.graph.node]
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.node.extend(nodes)


@pytest.mark.parametrize("kind", ["int8", "float16"])
def test_constants_of_nodes_are_weights(rounded, tmp_path, kind):
    """All are compared as initializers are, and one changed value is named."""
    model = onnx.load(rounded[1](kind))
    to_constants(model)
    status, result, _ = judge(rounded, model, tmp_path / "right.onnx")
    assert (status, result["graph"], result["weights"]["absent"]) == (0, "judged", [])
    types = (TensorProto.FLOAT16, TensorProto.INT8, TensorProto.UINT8)
    tables = [n.attribute[0].t for n in model.graph.node if n.op_type == "Constant" and len(n.attribute[0].t.dims) == 2]
    table = next(each for each in tables if each.data_type in types)
    values = numpy_helper.to_array(table).copy()
    values[1, 1] = values[1, 1] * 1.3 if kind == "float16" else values[1, 1] // 2 + 60
    table.CopyFrom(numpy_helper.from_array(values, table.name))
    status, result, _ = judge(rounded, model, tmp_path / "wrong.onnx")
    assert status == 1
    assert "steps from the checkpoint's" in result["cause"]


def test_a_twin_that_does_not_load_is_a_graph_that_is_not_judged(rounded, tmp_path):
    """A table whose integers are transposed before they are widened: weights and drift are judged, the log says so."""
    model = onnx.load(rounded[1]("static"))
    (table,) = [each for each in model.graph.initializer if each.name.endswith("position_embeddings.weight_quantized")]
    table.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(numpy_helper.to_array(table).T), table.name))
    for node in model.graph.node:
        node.input[:] = [f"{name}.moved" if name == table.name else name for name in node.input]
    model.graph.node.insert(0, helper.make_node("Transpose", [table.name], [f"{table.name}.moved"], perm=[1, 0]))
    status, result, log = judge(rounded, model, tmp_path / "moved.onnx")
    assert (status, result["graph"], "ratio" in result["outputs"]["logits"]) == (0, "not judged", False)
    assert (result["validated_at"], "tried" in result) == ([], False)
    assert "ONNX Runtime does not load its float twin" in log
    assert "parity-twin-" not in log
    assert "[x]" not in log
    status, result, _ = judge(rounded, model, tmp_path / "moved.onnx", "--max-drift", "0.001")
    assert (status, {failure["check"] for failure in result["failures"]}) == (1, {"drift"})


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A checkpoint of the same sizes with other weights."""
    directory = tmp_path_factory.mktemp("other")
    save_checkpoint(directory, "distilbert", "masked-lm", seed=7)
    return directory


@pytest.mark.parametrize("kind", ["int8", "static", "int4", "float16"])
def test_a_rounded_file_of_another_checkpoint_says_so_first(rounded, other, kind):
    """None of its tensors is the rounding of a weight: that is one cause, not a list of tensors."""
    status, out, _ = run(other, rounded[1](kind), "--json")
    assert status == 1
    assert json.loads(out)["cause"].startswith("checkpoint: the file holds none of its 41 weights")


def test_weights_that_cannot_be_read_are_no_other_checkpoint(rounded, tmp_path):
    """QLinearMatMul holds weights in a form that is not compared: a file that drifts has that cause alone."""
    from onnxruntime.quantization import QuantFormat

    to_static(onnx.load(rounded[1]("source")), tmp_path / "file.onnx", quant_format=QuantFormat.QOperator)
    status, out, _ = run(rounded[0], tmp_path / "file.onnx", "--json", "--max-drift", "0.001")
    assert (status, "cause" in json.loads(out)) == (1, False)


def blocks(bits, zeros):
    """A model of one MatMulNBits whose last block is not full, with its zero points in the form that is given."""
    columns, rows, size = 40, 6, 16
    generator = np.random.default_rng(0)
    count = -(-columns // size)
    tensors = {
        "b": generator.integers(0, 256, (rows, count, size * bits // 8), np.uint8),
        "scales": generator.uniform(0.1, 1, rows * count).astype(np.float32),
    }
    if zeros == "packed":
        tensors["zeros"] = generator.integers(0, 256, rows * -(-count * bits // 8), np.uint8)
    if zeros == "float":
        tensors["zeros"] = generator.uniform(0, 2**bits, rows * count).astype(np.float32)
    node = helper.make_node(
        "MatMulNBits", ["x", *tensors], ["y"], domain="com.microsoft", K=columns, N=rows, bits=bits, block_size=size
    )
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [3, width]) for name, width in (("x", 40), ("y", 6))]
    graph = helper.make_graph(
        [node], "g", ends[:1], ends[1:], [numpy_helper.from_array(v, n) for n, v in tensors.items()]
    )
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=domains, ir_version=8)


# ONNX Runtime has no zero points in floating point for 8 bits.
@pytest.mark.parametrize(("bits", "zeros"), [(4, ""), (4, "packed"), (4, "float"), (8, ""), (8, "packed")])
def test_blocks_are_read_as_the_runtime_reads_them(bits, zeros):
    """The twin's product is the runtime's; of a model with one other scale, it is not."""

    def answers(model):
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(None, {"x": np.random.default_rng(1).standard_normal((3, 40)).astype(np.float32)})[0]

    reference = answers(blocks(bits, zeros))
    np.testing.assert_allclose(answers(Twin(blocks(bits, zeros)).build({})), reference, rtol=1e-3, atol=0.1)
    model = blocks(bits, zeros)
    scales = numpy_helper.to_array(model.graph.initializer[1]) * np.float32(1.5)
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(scales, "scales"))
    assert np.abs(answers(Twin(model).build({})) - reference).max() > 1


def test_products_of_another_form_have_no_twin():
    """MatMulNBits with a bias or of 2 bits, and MatMulBnb4: named, so that no graph with them counts as judged."""
    model = blocks(4, "")
    assert Twin(model).without == ()
    model.graph.node[0].input.extend(["", "", "scales"])
    assert Twin(model).without == ("MatMulNBits",)
    model = blocks(4, "")
    next(each for each in model.graph.node[0].attribute if each.name == "bits").i = 2
    assert Twin(model).without == ("MatMulNBits",)
    model.graph.node[0].op_type = "MatMulBnb4"
    precision = read_precision(model)
    assert (precision.name, precision.without_twin) == ("int4 blocks", ("MatMulBnb4",))


def test_an_unknown_fold_is_no_wrong_weight():
    """A tensor near a weight that may be folded is that weight only if it is its rounding; near another, a fault."""
    values = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)

    def match(factor, *, combined):
        scaled = values.astype(np.float64) * factor
        steps = np.full(values.shape, np.abs(scaled).max() / 127)
        tensor = Rounded("t", np.rint(scaled / steps) * steps, steps, np.zeros(values.shape, bool))
        matches, _ = match_roundings([tensor], [Weight(("w",), values, combined=combined)])
        return [each.passed for each in matches]

    assert match(1, combined=True) == match(1, combined=False) == [True]
    assert (match(1.1, combined=True), match(1.1, combined=False)) == ([], [False])


def small_model(nodes, tensors, dtype=TensorProto.FLOAT):
    ends = [helper.make_tensor_value_info("x", dtype, [2, 3]), helper.make_tensor_value_info("y", dtype, None)]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def answer(model):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.arange(6, dtype=np.float32).reshape(2, 3)})[0]


@pytest.mark.parametrize("is_exchanged", [False, True])
def test_integers_that_are_moved_keep_their_scale(is_exchanged):
    """A computed scale goes with its activation through a transposition; that of another one does not fit."""
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("Neg", ["x"], ["n"]),
        helper.make_node("DynamicQuantizeLinear", ["n"], ["r", "t", "w"]),
        helper.make_node("Transpose", ["q"], ["m"]),
        helper.make_node("DequantizeLinear", ["m", "t" if is_exchanged else "s", "z"], ["y"]),
    ]
    right = np.arange(6, dtype=np.float32).reshape(2, 3).T
    assert np.array_equal(answer(Twin(small_model(nodes, [])).build({})), right) is not is_exchanged


def test_a_number_in_half_precision_keeps_its_rank():
    """A constant without axes that is made one axis longer has one axis in the twin too."""
    half = numpy_helper.from_array(np.array(0.5, np.float16), "half")
    nodes = [
        helper.make_node("Unsqueeze", ["half", "axis"], ["vector"]),
        helper.make_node("Concat", ["vector", "vector", "vector"], ["row"], axis=0),
        helper.make_node("Mul", ["x", "row"], ["y"]),
    ]
    axis = numpy_helper.from_array(np.array([0]), "axis")
    twin = Twin(small_model(nodes, [half, axis], TensorProto.FLOAT16)).build({})
    assert answer(twin).tolist() == [[0, 0.5, 1], [1.5, 2, 2.5]]
