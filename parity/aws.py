"""The state of the AWS Neuron SDK on this machine: absent, able to compile, or able to run on a device."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from parity.environment import version_of

# Possible states of the AWS Neuron SDK on this machine.
ABSENT, PLACEHOLDER, NO_COMPILER, NO_DEVICE, DEVICE = "absent", "placeholder", "no compiler", "no device", "device"
# The module that traces → its compiler's command, and the instances that it compiles for.
NEURON = {"torch_neuron": ("neuron-cc", "Inf1"), "torch_neuronx": ("neuronx-cc", "Inf2 or Trn1")}
_PAGE = "docs/neuron.md of the repository has the order of installation"


@dataclass(frozen=True)
class NeuronEvidence:
    """Evidence of the AWS Neuron SDK and its devices on this machine; `classify` draws the conclusion.

    Args:
        package: the module that traces, a key of `NEURON`.
        version: of the installed distribution; None if it is missing.
        refusal: the error that importing the module raised; empty if there was none, or no import.
        tracer: whether the imported module has a `trace` that can be called.
        compiler: path of the compiler's command; empty if it is missing.
        devices: character devices of the kernel's neuron driver.
        cores: number of NeuronCores that the runtime reported in a call that succeeded.
        runtime: the runtime's message if it reported no cores.
    """

    package: str = "torch_neuron"
    version: str | None = None
    refusal: str = ""
    tracer: bool = False
    compiler: str = ""
    devices: tuple[str, ...] = ()
    cores: int = 0
    runtime: str = ""


@dataclass(frozen=True)
class Neuron:
    """One of the five states, with the sentence that says what to install or where to run."""

    state: str
    sentence: str
    cores: int = 0

    @property
    def imports(self) -> bool:
        """Whether the SDK is installed, so that compiled files can be loaded."""
        return self.state in (NO_COMPILER, NO_DEVICE, DEVICE)

    @property
    def compiles(self) -> bool:
        """Whether models can be compiled."""
        return self.state in (NO_DEVICE, DEVICE)

    @property
    def runs(self) -> bool:
        """Whether compiled models can be run."""
        return self.state == DEVICE


def classify(evidence: NeuronEvidence) -> Neuron:
    """The state that the evidence allows; a working device needs the SDK, a character device and a runtime call."""
    distribution, (compiler, instances) = evidence.package.replace("_", "-"), NEURON[evidence.package]
    name = f"{distribution} {evidence.version or 'of unknown version'}"
    if not evidence.tracer:
        # The public package index has a package of this name that only reports that it is the wrong one.
        if "WRONG PACKAGE" in evidence.refusal or (distribution, evidence.version) == ("torch-neuron", "1.0"):
            return Neuron(
                PLACEHOLDER,
                f"{name} is the placeholder of the public package index, not the AWS Neuron"
                f" SDK: uninstall it and install {distribution} from the repository of AWS Neuron; {_PAGE}",
            )
        if evidence.version is None and not evidence.refusal:
            return Neuron(ABSENT, f"the AWS Neuron SDK ({distribution}) is not installed; {_PAGE}")
        why = f"importing it raises {evidence.refusal}" if evidence.refusal else "it has no trace"
        return Neuron(ABSENT, f"{name} is no AWS Neuron SDK that works here: {why}; {_PAGE}")
    if not evidence.compiler:
        return Neuron(
            NO_COMPILER,
            f"{name} is installed without its compiler: {compiler} is not on PATH; install"
            f" {compiler} from the repository of AWS Neuron; {_PAGE}",
        )
    if not evidence.devices:
        return Neuron(
            NO_DEVICE,
            f"{name} can compile here, but there is no Neuron device: run this on an"
            f" {instances} instance with the aws-neuronx driver",
        )
    if evidence.cores < 1:
        return Neuron(
            NO_DEVICE,
            f"{name} can compile here, but the Neuron runtime does not open"
            f" {', '.join(evidence.devices)} ({evidence.runtime or 'it names no core'}): end other processes that hold"
            f" its cores, or run this on an {instances} instance with the aws-neuronx driver",
        )
    return Neuron(DEVICE, f"{name} with {evidence.cores} NeuronCores at {evidence.devices[0]}", evidence.cores)


def neuron_evidence(
    package: str = "torch_neuron", *, dev: Path = Path("/dev"), drivers: Path = Path("/proc/devices")
) -> NeuronEvidence:
    """Collect the evidence on this machine; the SDK is imported in a child process only.

    Args:
        package: the module that traces, a key of `NEURON`.
        dev: directory of the device nodes.
        drivers: the kernel's list of drivers.
    """
    version = version_of(package.replace("_", "-"))
    if version is None and not _is_importable(package):
        return NeuronEvidence(package)
    refusal = _in_child(_IMPORT, package)
    compiler = shutil.which(NEURON[package][0]) or ""
    devices = neuron_devices(dev, drivers)
    cores, message = 0, ""
    if devices and not refusal:
        message = _in_child(_RUNTIME, package)
        cores, message = (int(message), "") if message.isdecimal() else (0, message)
    return NeuronEvidence(package, version, refusal, not refusal, compiler, devices, cores, message)


def neuron_devices(dev: Path = Path("/dev"), drivers: Path = Path("/proc/devices")) -> tuple[str, ...]:
    """The nodes neuron0, neuron1, … that are character devices of the kernel's driver `neuron`.

    Files, FIFOs, links and nodes of other drivers with such a name do not count.
    """
    numbers: set[int] = set()
    if drivers.is_file():
        characters = drivers.read_text(encoding="utf-8").partition("Block devices")[0]
        entries = [line.split() for line in characters.splitlines()]
        numbers = {int(entry[0]) for entry in entries if len(entry) == 2 and entry[1] == "neuron"}
    nodes = []
    for path in sorted(dev.glob("neuron[0-9]*")):
        status = path.lstat()
        if stat.S_ISCHR(status.st_mode) and os.major(status.st_rdev) in numbers:
            nodes.append(str(path))
    return tuple(nodes)


@functools.cache
def neuron(package: str = "torch_neuron") -> Neuron:
    """The gate: the state of the SDK on this machine."""
    return classify(neuron_evidence(package))


def _is_importable(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # a loaded module without a `__spec__`
        return True


# Prints nothing if the tracer can be called, otherwise the reason.
_IMPORT = """
import importlib, sys
try:
    module = importlib.import_module(sys.argv[1])
    if sys.argv[1] == "torch_neuron":
        import torch
        module = torch.neuron
    print("" if callable(module.trace) else "its trace cannot be called")
except BaseException as error:
    print(" ".join(f"{type(error).__name__}: {error}".split()))
"""
# Opens the runtime (libnrt, framework 3 is PyTorch), counts the cores that it sees, and closes it.
_RUNTIME = """
import ctypes, importlib.util, pathlib, sys
home = pathlib.Path(importlib.util.find_spec(sys.argv[1]).origin).parent
found = [*sorted(home.rglob("libnrt.so*")), *map(pathlib.Path, ("/opt/aws/neuron/lib/libnrt.so.1",))]
library = next((path for path in found if path.is_file()), None)
if library is None:
    sys.exit(print("libnrt.so is not installed"))
runtime, cores = ctypes.CDLL(str(library)), ctypes.c_uint32(0)
status = runtime.nrt_init(3, b"", b"")
if status != 0:
    sys.exit(print(f"nrt_init returns {status}"))
status = runtime.nrt_get_visible_nc_count(ctypes.byref(cores))
runtime.nrt_close()
print(cores.value if status == 0 else f"nrt_get_visible_nc_count returns {status}")
"""
_CHILD_SECONDS = 120


def _in_child(code: str, package: str) -> str:
    """The last line that the code prints in a child process, or how that process ended."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        process = subprocess.run(
            [sys.executable, "-c", code, package],
            env=environment,
            capture_output=True,
            text=True,
            timeout=_CHILD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no answer in {_CHILD_SECONDS} seconds"
    if process.returncode != 0:
        errors = process.stderr.strip().splitlines() or [""]
        return f"the process ended with {process.returncode}: {errors[-1]}"
    lines = process.stdout.splitlines() or [""]
    return lines[-1].strip()[:300]
