"""The calling contract of torch_neuron, tested with a recording stand-in in separate processes."""

import json
import os
import subprocess
import sys

import pytest

from parity.fixtures.controls import stand_in

PLUGINS = ("-p", "parity.fixtures.plugin", "-p", "parity.reports.recording.plugin", "-p", "no:cacheprovider")

TEXTS = {
    "NRT:nrt_init Unable to determine Neuron Driver version": "install the aws-neuronx driver on an Inf1 instance",
    "NeuronCore(s) not available - Requested:nc1-nc1 Available:0": "with NEURON_RT_VISIBLE_CORES",
    "Error parsing message with type 'tensorflow.GraphDef'": "pass separate_weights=True",
    "subprocess.TimeoutExpired: neuron-cc timed out": "raise compiler_timeout",
    "WRONG PACKAGE. Please install the package from Neuron Repository": "uninstall it and install it from the repo",
    "some other trouble": "some other trouble",
}

# One process for all, because importing torch takes longer than the calls.
SESSION = """
import dataclasses, json, os, torch
from parity.fixtures import subjects
from parity import neuron
from parity.errors import ParityError

told = {}
subject = subjects.subject("bert", "masked-lm")
inputs = subject.source.resize({"batch": 1, "sequence": 16}).inputs

def trace(said, **options):
    return neuron.trace(subject.model, inputs, onnx_config=subject.onnx_config, say=said.append, **options)

def refused(**options):
    try:
        trace([], **options)
    except ParityError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was refused"

told["analysis"] = neuron.analyze(subject.model, inputs)
import torch_neuron
torch_neuron._note(call="analyzed")

said = []
made = trace(said, output="model.pt", compiler_args=["--fast-math", "none"], compiler_timeout=9, strict=False,
             compiler_workdir="work", dynamic_batch_size=True, separate_weights=True)
told["made"] = [made.compiled, made.proof, made.engine, made.dynamic_batch]
told["last"] = said[-1]
told["file"] = neuron.load("model.pt").facts()["neuron"]
told["unknown"] = refused(compiler="x")

told["modes"] = {}
for mode in ("compiles", "falls back", "leaves"):
    torch_neuron._MODE, said = mode, []
    told["modes"][mode] = [refused()]
    trace(said, allow_fallback=True)
    told["modes"][mode].append([line for line in said if line.startswith("warning: ")])

def fails(*tensors):
    raise RuntimeError(os.environ["STAND_IN_TEXT"])

torch_neuron._MODE, told["texts"] = "compiles", {}
made = trace([])
for text in TEXTS:
    os.environ["STAND_IN_TEXT"] = text
    torch_neuron._MODE = "raises"
    told["texts"][text] = [refused()]
    # In the module's place: the interpreter of torch 1.13 drops the text of an operator that is written in Python.
    try:
        dataclasses.replace(made, module=fails)(*made.example.values())
    except ParityError as error:
        told["texts"][text].append(str(error))

torch_neuron._MODE = "compiles"
torch_neuron._note(call="the document")
DOCUMENT
print(json.dumps(told))
"""
# The document's snippet with the variable that it misspells; and the same with one changed line.
DOCUMENT = """
model, tokens_tensor, segments_tensors = subject.model, inputs["input_ids"], inputs["token_type_ids"]
model.config.return_dict = False
token_tensor = tokens_tensor

import torch
import torch.neuron

torch.neuron.trace(model, [token_tensor, segments_tensors])
"""
CHANGED = DOCUMENT.replace("torch.neuron.trace(", "changed = neuron.trace(") + "told['changed'] = changed.compiled"
# In a new process: load the file before importing the SDK, then after.
FRESH = """
import json, torch
from parity import neuron

told = {}
try:
    torch.jit.load("model.pt")
except RuntimeError as error:
    told["alone"] = str(error)
told["clear"] = neuron.explain(told["alone"])
told["compiled"] = neuron.load("model.pt").compiled
print(json.dumps(told))
"""


def run(directory, *arguments):
    """Run a process with the stand-in in that directory; returns its last line as JSON, and the logged calls."""
    log = directory / "calls.jsonl"
    log.unlink(missing_ok=True)
    process = subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        env={**os.environ, **stand_in.write(directory)},
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    return json.loads(process.stdout.splitlines()[-1]), [json.loads(line) for line in log.read_text().splitlines()]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("stand-in")


@pytest.fixture(scope="module")
def session(directory):
    """The results of the whole session, and the calls that the stand-in logged."""
    code = SESSION.replace("DOCUMENT\n", DOCUMENT + CHANGED + "\n").replace("TEXTS", repr(list(TEXTS)))
    return run(directory, "-c", code)


def calls_of(session, name, since=""):
    """The calls of that name, after the call `since`."""
    noted = session[1]
    start = next(i for i, call in enumerate(noted) if call["call"] == since) if since else 0
    return [call for call in noted[start:] if call["call"] == name]


def test_trace_is_called_as_documented(session):
    """It gets its keywords and those of torch.jit.trace, a tuple of tensors, and an eager model in eval mode.

    torch_neuron is imported before a file is loaded, and nothing is called proven without a device.
    """
    answers = session[0]
    called = calls_of(session, "trace")[0]
    assert called["keywords"] == {
        "compiler_args": ["--fast-math", "none"],
        "compiler_timeout": 9,
        "compiler_workdir": "work",
        "dynamic_batch_size": True,
        "separate_weights": True,
    }
    assert (called["container"], called["shapes"]) == ("tuple", [[1, 16]] * 3)
    assert (called["training"], called["attention"]) == (False, "eager")
    names = [call["call"] for call in session[1]]
    assert names.index("import") < names.index("torch.jit.load")
    assert answers["made"] == [1, "", "neuron", True]
    assert answers["last"].startswith("Compiled, but not run yet: torch-neuron")
    assert answers["unknown"].startswith("UsageError: options: compiler: torch_neuron.trace has compiler_args, ")


def test_the_file_says_how_it_was_compiled(session):
    """Engine, package, compiled nodes and operators outside are read back from it."""
    assert session[0]["file"] == {
        "engine": "neuron",
        "package": "torch_neuron",
        "sdk": "",
        "compiled": 1,
        "dynamic_batch": True,
        "outside": {},
    }


@pytest.mark.parametrize(
    ("mode", "says"),
    [
        ("compiles", "nothing was refused"),
        ("falls back", "nothing was compiled: all "),
        ("leaves", "operators fell back to the CPU: aten::add (1), aten::erfinv (1), aten::mul (1)"),
    ],
)
def test_a_silent_fallback_is_a_failure(session, mode, says):
    """Operators left to the CPU are refused by name; allow_fallback reports them."""
    refused, reported = session[0]["modes"][mode]
    assert says in refused
    assert len(reported) == (mode != "compiles")
    assert all(says in line for line in reported)
    assert ("--allow-fallback" in refused) == (mode != "compiles")
    heard = "the compiler failed, and the module that it returned would run on the CPU" in refused
    assert heard == (mode == "falls back")


@pytest.mark.parametrize("text", TEXTS)
def test_documented_errors_become_clear_messages(session, text):
    """Each documented text, raised when compiling or running, gets advice; other texts stay unchanged."""
    compiling, running = session[0]["texts"][text]
    assert TEXTS[text] in compiling
    assert TEXTS[text] in running
    assert text in compiling
    assert text in running
    assert compiling.startswith("ExportError: torch_neuron.trace failed: ")


def test_analyze_model_is_offered_before_compiling(session):
    """`analyze` returns the SDK's report on the same tensors, and compiles nothing."""
    assert session[0]["analysis"] == {"percent_supported": 96.9}
    names = [call["call"] for call in session[1]]
    assert "trace" not in names[: names.index("analyzed")]
    assert calls_of(session, "analyze_model")[0]["shapes"] == [[1, 16]] * 3


def test_the_snippet_of_the_document(session):
    """It runs unchanged; with one changed line it runs through parity."""
    first, second = calls_of(session, "trace", since="the document")
    assert (first["container"], second["container"]) == ("list", "tuple")
    assert first["shapes"] == second["shapes"] == [[1, 16], [1, 16]]
    assert session[0]["changed"] == 1


@pytest.mark.usefixtures("session")
def test_a_file_needs_the_sdk_imported_first(directory):
    """torch.jit.load alone fails with the documented text; parity.neuron.load imports the SDK or raises the gate."""
    from parity import neuron
    from parity.errors import EnvironmentGap

    answers, _ = run(directory, "-c", FRESH)
    assert "Unknown builtin op: neuron::forward_1" in answers["alone"]
    assert answers["clear"].startswith("the file holds code that was compiled for Neuron; import torch_neuron before")
    assert answers["compiled"] == 1
    with pytest.raises(EnvironmentGap, match="is not installed"):
        neuron.load(directory / "model.pt")


def test_the_command(tmp_path):
    """`python -m parity.neuron` writes a file for each bucket and says that none has run on a device."""
    from parity.fixtures.checkpoints import save_checkpoint

    save_checkpoint(tmp_path / "checkpoint", "bert")
    arguments = ["-m", "checkpoint", "--buckets", "12,24", "--batch", "2", "--cores", "4", "--json", "out"]
    found, calls = run(tmp_path, "-m", "parity.neuron", *arguments)
    assert (found["status"], found["engine"]) == ("compiled", "neuron")
    assert [each["proof"] for each in found["models"]] == ["", ""]
    assert sorted(path.name for path in (tmp_path / "out").glob("*.pt")) == ["model-12.pt", "model-24.pt"]
    traced = [call for call in calls if call["call"] == "trace"]
    assert [call["shapes"][0] for call in traced] == [[2, 12], [2, 24]]
    assert {tuple(call["keywords"]["compiler_args"]) for call in traced} == {("--neuroncore-pipeline-cores", "4")}


WITH_CORES = """
import pytest
from parity import aws

answer = aws.Neuron(aws.DEVICE, "three cores, in this test only", 3)
aws.neuron = lambda package="torch_neuron": answer
"""


@pytest.fixture
def three_cores(pytester):
    """A run with three cores according to the gate; each of its tests prints the cores that it sees."""
    pytester.makeconftest(WITH_CORES)
    test = """
        import os, time

        def test_core(worker_id):
            time.sleep(0.2)
            print("CORE", worker_id, os.environ.get("NEURON_RT_VISIBLE_CORES"))
        """
    pytester.makepyfile(**{f"test_{number}": test for number in range(6)})
    return lambda *arguments: pytester.runpytest_subprocess("-p", "conftest", *PLUGINS, "-rP", *arguments)


def test_each_worker_has_its_own_core(three_cores, monkeypatch):
    """Each worker sees one different core of those that the run may use; without workers a run sees all."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([".", os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("NEURON_RT_VISIBLE_CORES", "4-5,7")
    result = three_cores("-n", "3")
    worker_cores = {tuple(line.split()[1:]) for line in result.outlines if line.startswith("CORE")}
    assert len({worker for worker, _ in worker_cores}) == len(worker_cores)
    assert {core for _, core in worker_cores} <= {"4", "5", "7"}
    assert len(worker_cores) > 1


def test_never_more_workers_than_cores(three_cores, monkeypatch):
    """More are refused before anything runs; `-n auto` starts at most as many."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([".", os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("NEURON_RT_VISIBLE_CORES", "2")
    result = three_cores("-n", "2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*-n 2: 1 NeuronCores are here, and each worker needs its own: give -n 1"])
    result = three_cores("-n", "auto")
    assert {line.split()[1] for line in result.outlines if line.startswith("CORE")} == {"gw0"}


def test_the_core_of_a_worker_that_is_gone_is_given_on():
    """The replacement of a dead worker gets its core; a worker without a free core is refused."""
    from types import SimpleNamespace

    from parity.fixtures.neuron import Cores, visible_cores

    nodes = [SimpleNamespace(gateway=SimpleNamespace(id=f"gw{n}"), workerinput={}) for n in range(4)]
    cores = Cores(visible_cores("", 2))
    for node in nodes[:2]:
        cores.pytest_configure_node(node)
    cores.pytest_testnodedown(nodes[1], None)
    cores.pytest_configure_node(nodes[2])
    assert [node.workerinput.get("neuron_core") for node in nodes] == [0, 1, 1, None]
    with pytest.raises(pytest.UsageError, match="no NeuronCore is free"):
        cores.pytest_configure_node(nodes[3])
