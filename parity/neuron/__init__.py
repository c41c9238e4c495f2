"""Transformers models on AWS Inferentia: compiled for Inf1, checked for what fell back to the CPU, proven on a device.

`trace` stands where `torch.neuron.trace` stood. The same door leads to Inf2 and Trn1 where `torch_neuronx` is
installed. Names are resolved on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
