"""What this machine can do for AWS Neuron: nothing, compile, or run on a device; a gate that nothing fools."""

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

# The answers to the question what can be done for AWS Neuron here.
ABSENT, PLACEHOLDER, NO_COMPILER, NO_DEVICE, DEVICE = "absent", "placeholder", "no compiler", "no device", "device"
# The module that traces → its compiler's command, and the instances it is for.
NEURON = {"torch_neuron": ("neuron-cc", "Inf1"), "torch_neuronx": ("neuronx-cc", "Inf2 or Trn1")}
_PAGE = "docs/neuron.md of the repository has the order of installation"


@dataclass(frozen=True)
class NeuronEvidence:
    """What was found of the AWS Neuron SDK and of its devices; `classify` draws the conclusion.

    Args:
        package: the module that traces, a key of `NEURON`.
        version: of the installed distribution; None where none is.
        refusal: what importing the module raised; empty where nothing was raised, or nothing imported.
        tracer: whether the imported module has its `trace`.
        compiler: where the compiler's command is; empty where there is none.
        devices: character devices that the kernel's neuron driver has made.
        cores: the NeuronCores that the runtime has opened, by a call that succeeded.
        runtime: what the runtime said where none did.
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
    """One of the five answers, with the sentence that says what to install or where to run."""

    state: str
    sentence: str
    cores: int = 0

    @property
    def imports(self) -> bool:
        """Whether the SDK is there, so that compiled files can be loaded."""
        return self.state in (NO_COMPILER, NO_DEVICE, DEVICE)

    @property
    def compiles(self) -> bool:
        """Whether models can be compiled."""
        return self.state in (NO_DEVICE, DEVICE)

    @property
    def runs(self) -> bool:
        """Whether what is compiled can be run."""
        return self.state == DEVICE


def classify(evidence: NeuronEvidence) -> Neuron:
    """The answer that the evidence allows; a working device needs the SDK, a character device and a runtime call."""
    distribution, (compiler, instances) = evidence.package.replace("_", "-"), NEURON[evidence.package]
    name = f"{distribution} {evidence.version or 'of unknown version'}"
    if not evidence.tracer:
        # The package index has a package of that name, which only says that it is the wrong one.
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
    """What this machine has of it. Nothing of the SDK is imported here: that is tried in a process of its own."""
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
    """The nodes neuron0, neuron1, … that are character devices of the driver that the kernel knows as `neuron`.

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
    """The gate: which of the five answers holds on this machine."""
    return classify(neuron_evidence(package))


def _is_importable(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # a module that somebody made by hand
        return True


# Prints nothing where the tracer is there, or why it is not.
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
    """The last line that the code prints in a process of its own, or how that process ended."""
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
