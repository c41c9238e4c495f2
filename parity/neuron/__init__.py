"""Transformers models on AWS Inferentia: compiled for Inf1, checked for operators left to the CPU, proven on a device.

`trace` replaces `torch.neuron.trace`. The same functions compile for Inf2 and Trn1 if `torch_neuronx` is installed.
Names are resolved on first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
