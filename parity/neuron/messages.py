"""Error texts of the Neuron SDK, as AWS documents them → their meaning and what to do."""

from __future__ import annotations

# Part of the text → what to do. The first match counts.
EXPLANATIONS = {
    "WRONG PACKAGE": (
        "torch-neuron comes from the public package index, where it is a placeholder; uninstall it and install it from"
        " the repository of AWS Neuron"
    ),
    "Unknown builtin op: neuron::": (
        "the file holds code that was compiled for Neuron; import torch_neuron before torch.jit.load, or load it with"
        " parity.neuron.load, on a machine that has the SDK"
    ),
    "Unable to determine Neuron Driver version": (
        "there is no Neuron driver here; install the aws-neuronx driver on an Inf1 instance and run it there"
    ),
    "NeuronCore(s) not available": (
        "another process owns the NeuronCore, or there are fewer than asked for; end that process, or give each process"
        " a core of its own with NEURON_RT_VISIBLE_CORES"
    ),
    "falling back to native python function call": (
        "the compiler failed, and the module that it returned would run on the CPU; read the compiler's log, and see"
        " with parity.neuron.analyze, or --coverage, which operators are not supported"
    ),
    "Error parsing message with type 'tensorflow.GraphDef'": (
        "the model is larger than the 2 GB that one message holds; pass separate_weights=True"
    ),
    "TimeoutExpired": "the compiler did not finish in time; raise compiler_timeout",
}


def explain(text: str) -> str:
    """The SDK's own text on one line, with advice if AWS documents the error.

    Args:
        text: an error message or a line of the log.

    Raises:
        AttributeError: it is not a str.
    """
    own = " ".join(text.split())[:500]
    for part, advice in EXPLANATIONS.items():
        if part in own or part in text:
            return f"{advice} ({own})"
    return own
