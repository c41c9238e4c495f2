"""ONNX files that cannot be judged, do not end, or end the process: one sentence each, without delay."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from parity.errors import ExportError
from parity.judge import contract, sanity

ROOT = Path(__file__).parents[2]


def value(name, dtype=TensorProto.INT64, shape=(None, 8)):
    return helper.make_tensor_value_info(name, dtype, shape)


def model_of(*nodes, inputs=None, outputs=None, weights=(), opset=17):
    graph = helper.make_graph(
        nodes or [helper.make_node("Add", ["ids", "weight"], ["answer"])],
        "graph",
        inputs or [value("ids")],
        outputs or [value("answer")],
        weights or [numpy_helper.from_array(np.ones(8, np.int64), "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    return model


def weight(model):
    return model.graph.initializer[0]


def external(**entries):
    def change(model):
        weight(model).ClearField("raw_data")
        weight(model).data_location = TensorProto.EXTERNAL
        for key, text in {"location": "model.data", **entries}.items():
            weight(model).external_data.add(key=key, value=text)

    return change


def setting(get, name, content):
    return lambda model: setattr(get(model), name, content)


def twice(kind):
    return lambda model: getattr(model.graph, kind).append(getattr(model.graph, kind)[0])


def metadata(key, *texts):
    def change(model):
        for text in texts:
            model.metadata_props.add(key=key, value=text)

    return change


def input_type(model):
    return model.graph.input[0].type.tensor_type


def output_type(model):
    return model.graph.output[0].type.tensor_type


WRONG = {
    "undefined input": (setting(input_type, "elem_type", 0), "input ids: is of type 0, should be a tensor of one"),
    "unknown output": (setting(output_type, "elem_type", 99), "output answer: is of type 99, should be a tensor of"),
    "undefined weight": (setting(weight, "data_type", 0), "tensor weight: is of type 0, should be of one that ONNX"),
    "unknown weight": (setting(weight, "data_type", 77), "tensor weight: is of type 77, should be of one that ONNX"),
    "negative shape": (lambda model: weight(model).dims.append(-1), r"tensor weight: has the shape \[8, -1\], should"),
    "words in offsets": (external(offset="seven"), "tensor weight: offset: is .seven., should be a whole number of"),
    "negative length": (external(length="-8"), "tensor weight: length: is .-8., should be a whole number of"),
    "length of digits": (external(length="9" * 5000), "tensor weight: length: is .*…, should be a whole number of"),
    "the model itself": (
        external(location="model.onnx"),
        "tensor weight: its data is in model.onnx, the model itself, sh",
    ),
    "input twice": (twice("input"), "input ids: is there 2 times, should be there once"),
    "output twice": (twice("output"), "output answer: is there 2 times, should be there once"),
    "weight twice": (twice("initializer"), "initializer weight: is there 2 times, should be there once"),
    "no name": (setting(weight, "name", ""), "an initializer: has no name, should be there once, under a name"),
    "NUL in a name": (setting(weight, "name", "a\0b"), "the name of an initializer: is .*, should be a printable"),
    "opset 0": (lambda model: setattr(model.opset_import[0], "version", 0), "opset_import ai.onnx: is 0, should be a"),
    "opset 2**40": (
        lambda m: setattr(m.opset_import[0], "version", 2**40),
        "opset_import ai.onnx: is 1099511627776, sh",
    ),
    "two features": (metadata("feature", "default", "masked-lm"), "metadata feature: is default and masked-lm, should"),
    "feature of lines": (metadata("feature", "a\nb"), "metadata feature: is .*, should be a printable text"),
}


@pytest.mark.parametrize("case", WRONG)
def test_files_that_cannot_be_judged(tmp_path, case):
    """The place in the file, its value and the expected value; no error of onnx, and no allocation."""
    change, message = WRONG[case]
    model, path = model_of(), tmp_path / "model.onnx"
    change(model)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ExportError, match=f"{path}: {message}.*; export it again, or ask whoever wrote it"):
        contract.read(path)


def test_too_many_initializers(tmp_path, monkeypatch):
    """They are counted before they are read."""
    monkeypatch.setattr(sanity, "_check_names", None)
    weights = [TensorProto(name=f"w{index}") for index in range(sanity.LARGEST_GRAPH + 1)]
    (tmp_path / "model.onnx").write_bytes(model_of(weights=weights).SerializeToString())
    with pytest.raises(ExportError, match="graph: has 100001 initializers, should have at most 100000"):
        contract.read(tmp_path / "model.onnx")


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\xff" * 1000, b"\x3a\xff\xff\xff\xff\x07"])
def test_bytes_that_are_no_model(tmp_path, content):
    """In words, without the parser's text."""
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ExportError, match=r"is not a readable ONNX file; copy or export|names no opset"):
        contract.read(tmp_path / "model.onnx")


def test_a_sane_file_is_read(tmp_path):
    """The control: the file behind the cases, with foreign metadata, and one key of ours twice with equal values."""
    model = model_of()
    metadata("their own", "a\nb", "c")(model)
    metadata("feature", "default", "default")(model)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    assert contract.read(tmp_path / "model.onnx").metadata["feature"] == "default"


# A command that runs a foreign file like `parity check`.
COMMAND = """
import sys
from pathlib import Path
import numpy
from parity import interruptions
from parity.console import run_guarded
from parity.sessions import OnnxSession
from parity.supervision import run_process

def work():
    interruptions.limit_time(float(sys.argv[2]))
    interruptions.limit_memory()
    session = OnnxSession(Path(sys.argv[1]))
    print(session.run({"ids": numpy.ones((2, 8), numpy.int64)})["answer"].sum(), flush=True)
    return 0

run_process("parity x", lambda: run_guarded("parity x", work))
"""


def constant(name, array):
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array))


def endless():
    """A Loop whose condition stays true."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["goes"]), helper.make_node("Add", ["sum", "ids"], ["more"])],
        "body",
        [value("step", shape=()), value("going", TensorProto.BOOL, ()), value("sum")],
        [value("goes", TensorProto.BOOL, ()), value("more")],
    )
    loop = helper.make_node("Loop", ["", "yes", "ids"], ["answer"], body=body)
    return model_of(constant("yes", np.array(True)), loop)


def division():
    """Integer division by zero, which older releases of ONNX Runtime leave to the processor."""
    zero = helper.make_node("Sub", ["ids", "ids"], ["zero"])
    return model_of(zero, helper.make_node("Div", ["ids", "zero"], ["answer"]))


def hungry():
    """A tensor of 2**50 elements, from a file of a few bytes."""
    shape = constant("shape", np.array([2**25, 2**25]))
    blank = helper.make_node("ConstantOfShape", ["shape"], ["blank"], value=helper.make_tensor("v", 7, [1], [3]))
    total = helper.make_node("ReduceSum", ["blank"], ["total"], keepdims=0)
    return model_of(shape, blank, total, helper.make_node("Add", ["ids", "total"], ["answer"]))


ENDINGS = {
    "endless": (endless, "5", r"SIGALRM: it did not end in time; give a longer --timeout, or a file that ends"),
    "division": (division, "100", r"SIGFPE: an operator divided whole numbers by zero|Integer division by zero"),
    "hungry": (hungry, "100", r"out of memory|allocat"),
}


@pytest.mark.parametrize("case", ENDINGS)
def test_files_that_do_not_end_well(tmp_path, case):
    """The command that runs them ends with status 1 and one line, within its limits."""
    build, limit, message = ENDINGS[case]
    status, out, err = run_command(tmp_path, build(), limit)
    assert (status, out) == (1, "")
    assert err.startswith("parity x: error: ")
    assert len([line for line in err.splitlines() if not line.startswith("note: ")]) == 1
    assert re.search(message, err)


def test_a_file_that_ends_well(tmp_path):
    """The control: the limits stop no right file."""
    assert run_command(tmp_path, model_of(), "100") == (0, "32\n", "")


def run_command(tmp_path, model, limit):
    onnx.save(model, tmp_path / "model.onnx")
    command = [sys.executable, "-c", COMMAND, str(tmp_path / "model.onnx"), limit]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    return process.returncode, process.stdout, process.stderr
