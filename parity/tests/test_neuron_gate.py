"""The gate of AWS Neuron: five states from evidence; nothing on a machine without a device counts as one."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from parity import aws
from parity.aws import ABSENT, DEVICE, NO_COMPILER, NO_DEVICE, PLACEHOLDER, NeuronEvidence, classify
from parity.fixtures.controls import stand_in

ROOT = Path(__file__).parents[2]
WRONG = "ImportError: WRONG PACKAGE. Please install the package from Neuron Repository"
REAL = "1.13.1.2.11.12.0"
EVERYTHING = NeuronEvidence("torch_neuron", REAL, "", True, "/bin/neuron-cc", ("/dev/neuron0",), 4)


def every_evidence():
    """All combinations of evidence."""
    choices = itertools.product(
        aws.NEURON,
        (None, "1.0", REAL),
        ("", WRONG, "ImportError: undefined symbol"),
        (False, True),
        ("", "/bin/neuron-cc"),
        ((), ("/dev/neuron0",)),
        (0, 4),
        ("", "nrt_init returns 1"),
    )
    return [NeuronEvidence(*chosen) for chosen in choices]


def test_every_evidence_has_one_answer():
    """Without a tracer the state is absent or placeholder; then the compiler, then the device decide."""
    for evidence in every_evidence():
        state = classify(evidence).state
        if not evidence.tracer:
            wrong = "WRONG" in evidence.refusal or (evidence.package, evidence.version) == ("torch_neuron", "1.0")
            assert state == (PLACEHOLDER if wrong else ABSENT)
        elif not evidence.compiler:
            assert state == NO_COMPILER
        else:
            assert state == (DEVICE if evidence.devices and evidence.cores else NO_DEVICE)
    assert {classify(evidence).state for evidence in every_evidence()} == {
        ABSENT,
        PLACEHOLDER,
        NO_COMPILER,
        NO_DEVICE,
        DEVICE,
    }


@pytest.mark.parametrize("lacking", ["tracer", "compiler", "devices", "cores"])
def test_a_device_needs_all_of_it(lacking):
    """Without any one piece of evidence there is no working device; with all there is one."""
    import dataclasses

    assert classify(EVERYTHING).runs
    blank = {"tracer": False, "compiler": "", "devices": (), "cores": 0}[lacking]
    assert not classify(dataclasses.replace(EVERYTHING, **{lacking: blank})).runs


@pytest.mark.parametrize(
    ("evidence", "state", "says"),
    [
        (NeuronEvidence(), ABSENT, "is not installed"),
        (
            NeuronEvidence(version=REAL, refusal="ImportError: no torch"),
            ABSENT,
            "importing it raises ImportError: no t",
        ),
        (NeuronEvidence(version="1.0", refusal=WRONG), PLACEHOLDER, "uninstall it and install torch-neuron from"),
        (NeuronEvidence(version=REAL, tracer=True), NO_COMPILER, "install neuron-cc from the repository of AWS Neuron"),
        (NeuronEvidence(version=REAL, tracer=True, compiler="c"), NO_DEVICE, "run this on an Inf1 instance"),
        (
            NeuronEvidence("torch_neuronx", REAL, "", True, "c", ("/dev/neuron0",), 0, "nrt_init returns 1"),
            NO_DEVICE,
            "does not open /dev/neuron0 (nrt_init returns 1): end other processes",
        ),
        (EVERYTHING, DEVICE, "with 4 NeuronCores at /dev/neuron0"),
    ],
)
def test_each_answer_has_its_sentence(evidence, state, says):
    """It says what to install, or where to run."""
    answer = classify(evidence)
    assert (answer.state, says in answer.sentence) == (state, True), answer.sentence


def test_nothing_on_this_machine_passes_for_a_device(tmp_path):
    """With a stand-in for SDK and compiler, nodes of every kind and all variables, it stays `no device`."""
    variables = {**os.environ, **stand_in.write(tmp_path), "NEURON_RT_VISIBLE_CORES": "0-3", "NEURON_RT_NUM_CORES": "4"}
    nodes = impostors(tmp_path / "dev")
    code = (
        "import sys; from pathlib import Path; from parity import aws as e\n"
        "real = e.classify(e.neuron_evidence())\n"
        f"found = e.neuron_evidence(dev=Path({str(nodes)!r}))\n"
        "print(real.state, '|', e.classify(found).state, '|', found.tracer, bool(found.compiler), found.devices)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{NO_DEVICE} | {NO_DEVICE} | True True ()"


def impostors(directory):
    """A directory with a file, a FIFO, a link and, if this user may create one, a device of another driver."""
    directory.mkdir()
    (directory / "neuron0").write_text("")
    os.mkfifo(directory / "neuron1")
    (directory / "neuron2").symlink_to("/dev/null")
    if os.geteuid() == 0:
        os.mknod(directory / "neuron3", 0o600 | 0o020000, os.makedev(1, 3))
    return directory


def test_only_nodes_of_the_driver_are_devices(tmp_path):
    """A node counts only if the kernel assigns its number to the driver."""
    drivers = tmp_path / "devices"
    drivers.write_text("Character devices:\n  1 neuron\n\nBlock devices:\n  8 sd\n")
    evidence = aws.neuron_devices(impostors(tmp_path / "dev"), drivers)
    assert evidence == ((str(tmp_path / "dev" / "neuron3"),) if os.geteuid() == 0 else ())
    drivers.write_text("Character devices:\n  1 mem\n\nBlock devices:\n  1 neuron\n")
    assert aws.neuron_devices(tmp_path / "dev", drivers) == ()
    assert aws.neuron_devices(tmp_path / "dev", tmp_path / "none") == ()


def test_a_node_without_a_runtime_is_no_device(tmp_path):
    """A node of the driver without a working runtime: the sentence has the runtime's error."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a device node to try it on")
    drivers = tmp_path / "devices"
    drivers.write_text("Character devices:\n  1 neuron\n\nBlock devices:\n")
    code = (
        "from pathlib import Path; from parity import aws as e\n"
        f"found = e.neuron_evidence(dev=Path({str(impostors(tmp_path / 'dev'))!r}), drivers=Path({str(drivers)!r}))\n"
        "print(len(found.devices), e.classify(found).state, e.classify(found).sentence)"
    )
    variables = {**os.environ, **stand_in.write(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"1 {NO_DEVICE}")
    assert "(libnrt.so is not installed)" in done.stdout


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The interpreter of a new environment without packages."""
    home = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    return home / "bin" / "python"


def ask_gate(python):
    """State and sentence of the gate in another environment that has only parity."""
    code = "from parity import aws as e; print(e.neuron().state); print(e.neuron().sentence)"
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.run([python, "-c", code], env=variables, capture_output=True, text=True, check=True)
    return process.stdout.splitlines()


def test_absent_and_placeholder_by_the_real_packages(bare):
    """An empty environment is `absent`; with torch-neuron from the package index it is a placeholder."""
    state, sentence = ask_gate(bare)
    assert (state, "is not installed" in sentence) == (ABSENT, True)
    install = [sys.executable, "-m", "pip", "--python", str(bare), "install", "--quiet", "--no-deps", "--retries=0"]
    done = subprocess.run([*install, "torch-neuron==1.0"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"pip cannot get the placeholder torch-neuron 1.0: {(done.stderr.splitlines() or ['?'])[-1]}")
    state, sentence = ask_gate(bare)
    assert (state, "1.0 is the placeholder of the public package index" in sentence) == (PLACEHOLDER, True)
