"""Longformer: an encoder whose tokens look through a window, some of them at all others."""

from collections import OrderedDict

from parity.architectures.declaration import BIDIRECTIONAL_FEATURES, Architecture, token_axes
from parity.onnx.base import PatchingSpec
from parity.onnx.config import OnnxConfig


def overlapping(tensor, size, stride, storage_offset=None):
    """`as_strided` of a row-major (rows, …, width) tensor into overlapping windows (rows, count, window, width).

    The exporter writes strides down as numbers, those of the traced length; indices follow the length.
    """
    import torch

    _, _, window, width = size
    sequence = tensor.reshape(tensor.shape[0], -1, width)
    starts = torch.arange(0, sequence.shape[1] - window + 1, stride[1] // stride[2])
    return sequence[:, starts.unsqueeze(1) + torch.arange(window)]


def counted(tensor):
    """`len` that is traced: how many tokens are global is known only when the file runs."""
    return tensor.shape[0]


class LongformerOnnxConfig(OnnxConfig):
    """Token ids, attention mask and global attention mask."""

    def __init__(self, config, task="default", patching_specs=None):
        super().__init__(config, task, [*(patching_specs or []), *_at_any_length()])

    @property
    def inputs(self):
        return token_axes(self.task, "input_ids", "attention_mask", "global_attention_mask")

    @property
    def outputs(self):
        pooled = {"pooler_output": {0: "batch"}} if self.task == "default" else {}
        return OrderedDict(**super().outputs, **pooled)

    @property
    def atol_for_validation(self):
        return 1e-4

    @property
    def default_onnx_opset(self):
        return 14

    def generate_dummy_inputs(self, *args, **kwargs):
        inputs = dict(super().generate_dummy_inputs(*args, **kwargs))
        inputs["global_attention_mask"] = inputs["attention_mask"] * 0
        inputs["global_attention_mask"][..., 1::2] = 1
        return inputs


def _at_any_length():
    import torch
    from transformers.models.longformer import modeling_longformer

    return [
        PatchingSpec(torch.Tensor, "as_strided", overlapping),
        PatchingSpec(modeling_longformer, "len", counted, orig_op=len),
    ]


ARCHITECTURE = Architecture(
    model_type="longformer",
    kind="encoder",
    onnx_config=LongformerOnnxConfig,
    features=BIDIRECTIONAL_FEATURES,
    tiny={
        "vocab_size": 96,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 50,
        "attention_window": [6, 12],
        "type_vocab_size": 1,
    },
    preprocessor="roberta",
)
