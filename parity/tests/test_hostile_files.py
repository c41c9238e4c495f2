"""Untrusted files: nothing in them is executed or imported, and each wrong file gives one sentence."""

import json
import os
import shutil
import sys
import zipfile

import pytest

from parity import schema
from parity.archives import read_declaration
from parity.errors import SessionError, UsageError
from parity.fixtures import subjects
from parity.schema import SchemaError

# Value → the sentence that refuses it.
JSON = {
    "[" * 100_000: "nested too deeply",
    '{"a": NaN}': "no valid JSON",
    "{": "no valid JSON",
    "1" * 5000: "no valid JSON",
}


@pytest.mark.parametrize("text", JSON, ids=["brackets", "NaN", "open", "digits"])
def test_json_that_cannot_be_read(text):
    """Python's own exceptions, including RecursionError, become one kind."""
    with pytest.raises(SchemaError, match=JSON[text]):
        schema.parse_json(text)


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    """A small TorchScript file and a file compiled in emulation."""
    from parity import neuron
    from parity.torchscript import export

    directory = tmp_path_factory.mktemp("traced")
    subject = subjects.subject("bert", "default")
    export(subject.model, subject.source.dummy, directory / "trace.pt", prove=False)
    options = {"onnx_config": subject.onnx_config, "emulate": True, "prove": False, "say": print}
    neuron.trace(subject.model, subject.source.dummy, directory / "compiled.pt", **options)
    return directory


def rewrite(source, target, change):
    """A copy of an archive with a changed declaration: `change` gets the object, and may return another text."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("/extra/parity.json"):
                facts = json.loads(content)
                content = change(facts) or json.dumps(facts)
            new.writestr(name, content)
    return target


def setting(*keys, value):
    def change(facts):
        for key in keys[:-1]:
            facts = facts[key]
        facts[keys[-1]] = value

    return change


def without(key):
    return lambda facts: facts.pop(key) and None


WRONG = {
    "a list": (lambda facts: "[]", "parity.json: is a list of 0 items, should be an object with"),
    "null": (lambda facts: "null", "parity.json: is null, should be"),
    "brackets": (lambda facts: "[" * 100_000, "nested too deeply"),
    "no inputs": (without("inputs"), "parity.json: has no inputs, should have"),
    "a function": (setting("inputs", 0, "dtype", value="load"), r'inputs\[0\].dtype: is "load", should be one of'),
    "a number": (setting("inputs", 0, "dtype", value=3), r"inputs\[0\].dtype: is 3, should be one of"),
    "too large": (setting("inputs", 0, "shape", value=[10**9, 10**3]), "elements, should have at most"),
    "2**70": (setting("inputs", 0, "shape", value=[2**70]), "a whole number of 71 bits, should be a whole number from"),
    "negative": (setting("inputs", 0, "shape", value=[-1, 8]), "is -1, should be a whole number from 0"),
    "no such axis": (setting("inputs", 0, "axes", value={"7": "batch"}), "an axis that the shape does not have"),
    "axis of words": (setting("inputs", 0, "axes", value={"one": "batch"}), "a key of .*axes: is .one."),
    "a name twice": (lambda facts: facts["inputs"].append(facts["inputs"][0]), "names one twice"),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("kind", ["trace", "compiled"])
def test_wrong_declarations_are_refused(traced, tmp_path, kind, case):
    """One sentence with place, value and expected value; the graph is not loaded."""
    from parity import neuron
    from parity.torchscript import load

    change, message = WRONG[case]
    path = rewrite(traced / f"{kind}.pt", tmp_path / "model.pt", change)
    with pytest.raises(SessionError, match=f"{path}: is damaged, or parity did not write it: .*{message}"):
        (neuron.load if kind == "compiled" else load)(path)


def test_a_declaration_imports_nothing(traced, tmp_path, monkeypatch):
    """A module named in the file is not imported, though it is on the path."""
    from parity import neuron

    (tmp_path / "something.py").write_text("raise SystemExit('executed')")
    monkeypatch.syspath_prepend(str(tmp_path))
    change = setting("neuron", value={**neuron_facts(traced), "engine": "neuron", "package": "something"})
    path = rewrite(traced / "compiled.pt", tmp_path / "model.pt", change)
    with pytest.raises(SessionError, match='package: is "something", should be one of torch_neuron, torch_neuronx'):
        neuron.load(path)
    assert "something" not in sys.modules
    with pytest.raises(UsageError, match="package: got something, should be one of torch_neuron, torch_neuronx"):
        neuron.sdk.import_package("something")


def neuron_facts(traced):
    return read_declaration(traced / "compiled.pt")["neuron"]


def test_the_declaration_is_read_without_the_graph(traced, tmp_path):
    """A file without a graph, which could not run, has a readable declaration."""
    from parity.torchscript.model import declaration_of

    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("model/extra/parity.json", json.dumps(read_declaration(traced / "trace.pt")))
    assert declaration_of(tmp_path / "model.pt")["model_type"] == "bert"
    with zipfile.ZipFile(tmp_path / "model.pt", "a") as archive:
        archive.writestr("other/extra/parity.json", "{}")
    with pytest.raises(SessionError, match="is in the archive 2 times or too large"):
        declaration_of(tmp_path / "model.pt")


@pytest.mark.parametrize("kind", ["FIFO", "device", "directory", "loop", "nothing"])
def test_what_is_no_regular_file_is_not_opened(tmp_path, kind):
    """Reading a FIFO, or a device behind a link, would never end."""
    from parity import neuron
    from parity.torchscript import Runner, load

    path = tmp_path / "model.pt"
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind != "nothing":
        path.symlink_to("/dev/zero" if kind == "device" else path)
    for reader in (load, neuron.load, Runner):
        with pytest.raises(SessionError, match=f"file {path}: (is a {kind}, should be a regular|no such file)"):
            reader(path)


def test_what_is_no_path_is_refused():
    """`load(None)` and `Runner(None)` name the argument."""
    from parity.torchscript import Runner, load

    for reader in (load, Runner):
        with pytest.raises(UsageError, match="path: got NoneType, should be the path of a file"):
            reader(None)


def test_buckets_of_different_checkpoints_are_refused(traced, tmp_path):
    """Old and new files next to each other, as after an interrupted copy; files of one checkpoint are accepted."""
    from parity.torchscript import Runner

    paths = {
        name: rewrite(traced / "trace.pt", tmp_path / f"{name}.pt", setting("checkpoint", value=f"sha256:{name[0]}"))
        for name in ("a64", "a128", "b128")
    }
    assert Runner(paths["a64"], paths["a128"]).axes == ("sequence",)
    assert Runner(paths["a64"], traced / "trace.pt").axes == ("sequence",)
    with pytest.raises(UsageError, match="traces: they are of different checkpoints; trace one checkpoint at several"):
        Runner(paths["a64"], paths["b128"])


def test_a_whole_declaration_is_read(traced, tmp_path):
    """The control: the same files, rewritten without changes, load."""
    from parity import neuron
    from parity.torchscript import load

    shutil.copy(traced / "trace.pt", tmp_path / "copy.pt")
    assert load(rewrite(tmp_path / "copy.pt", tmp_path / "model.pt", lambda facts: None)).model_type == "bert"
    assert neuron.load(rewrite(traced / "compiled.pt", tmp_path / "model.pt", lambda facts: None)).compiled == 0


REQUESTS = {
    "a list": ([[1, 2]], "inputs: got list, should map names to tensors"),
    "None": ({"input_ids": None}, "inputs: input_ids is a NoneType, should be a torch tensor"),
    "a number": ({"input_ids": 3}, "inputs: input_ids is a int, should be a torch tensor"),
    "numbers": ({"input_ids": [[1, 2]]}, "inputs: input_ids is a list, should be a torch tensor"),
    "a name that is none": ({3: None}, "inputs: got 3, should be"),
    "no axes": (
        lambda torch: {"input_ids": torch.tensor(3)},
        r"input_ids has shape \(\), should have the axes bat",
    ),
    "floats": (lambda torch: {"input_ids": torch.ones(1, 4)}, "input_ids is of float32, should be of int64"),
    "complex": (lambda torch: {"input_ids": torch.ones(1, 4, dtype=torch.complex64)}, "input_ids is of complex64"),
    "meta": (
        lambda torch: {"input_ids": torch.ones(1, 4, dtype=int, device="meta")},
        "input_ids is on the device meta",
    ),
    "sparse": (lambda torch: {"input_ids": torch.ones(1, 4, dtype=int).to_sparse()}, "input_ids is sparse"),
    "negative": (lambda torch: {"input_ids": torch.full((2, 4), -5)}, "request: the trace refuses it: "),
    "beyond the vocabulary": (
        lambda torch: {"input_ids": torch.full((2, 4), 10**9)},
        "request: the trace refuses it: ",
    ),
    "too long": (lambda torch: {"input_ids": torch.ones(2, 4000, dtype=int)}, "is longer than what was traced"),
}


@pytest.mark.parametrize("case", REQUESTS)
@pytest.mark.parametrize("kind", ["trace", "compiled"])
def test_wrong_requests_are_refused(traced, kind, case):
    """Each raises one of our errors, with the input, its value and the expected value."""
    import torch

    from parity import neuron
    from parity.torchscript import Runner, load

    run = Runner((neuron.load if kind == "compiled" else load)(traced / f"{kind}.pt"))
    request, message = REQUESTS[case]
    request = request(torch) if callable(request) else request
    if isinstance(request, dict) and "input_ids" in request:
        shape = getattr(request["input_ids"], "shape", (2, 4))
        rest = torch.zeros(shape if len(shape) == 2 else (2, 4), dtype=torch.int64)
        request = {"token_type_ids": rest, "attention_mask": rest, **request}
    with pytest.raises((SessionError, UsageError), match=message):
        run(request)
    good = torch.ones(2, 4, dtype=torch.int64)
    assert run({"input_ids": good, "token_type_ids": good * 0})["last_hidden_state"].shape[:2] == (2, 4)


@pytest.mark.parametrize("axes", ["sequence", 3, [3], [["sequence"]], ["nowhere"], []])
def test_axes_that_are_none(traced, axes):
    """Neither a word nor a number is a list of names."""
    from parity.torchscript import Runner

    with pytest.raises(UsageError, match="axes: "):
        Runner(traced / "trace.pt", axes=axes)


def test_a_graph_that_returns_something_else(traced, tmp_path):
    """A declaration with fewer outputs than its graph."""
    import torch

    from parity.torchscript import load

    path = rewrite(traced / "trace.pt", tmp_path / "model.pt", lambda facts: facts["outputs"].pop() and None)
    trace, tokens = load(path), torch.ones(2, 8, dtype=torch.int64)
    with pytest.raises(SessionError, match="outputs: the trace returns 2, should return 1 tensors"):
        trace.run({name: tokens.numpy() for name in trace.inputs})


CALIBRATIONS = {
    "[]": "is a list of 0 items, should be an object with sdk, architectures",
    "[" * 10**5: "is nested too deeply",
    '{"sdk": 3, "architectures": {}}': r"\.sdk: is 3, should be a printable text",
    '{"sdk": "2", "architectures": {"bert": {"relative": "x", "cosine": 1}}}': "relative: is .x., should be a number",
    '{"sdk": "2", "architectures": {"bert": {"cosine": 1}}}': "has no relative, should have relative, cosine",
}


@pytest.mark.parametrize("text", CALIBRATIONS, ids=range(len(CALIBRATIONS)))
def test_wrong_calibrations_are_refused(tmp_path, text):
    """The file is written on a device and copied here by a person."""
    from parity.neuron.tolerances import Tolerances

    path = tmp_path / "calibration.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=f"calibration.json.*{CALIBRATIONS[text]}.*; calibrate again"):
        Tolerances.calibrated(path, "bert")
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(UsageError, match="is a device, should be a regular file"):
        Tolerances.calibrated(path, "bert")
