"""What an ONNX file of a model looks like: inputs, outputs, dynamic axes, dummy inputs, overrides.

Drop-in for `transformers.onnx.config`. An axis is a claim: every name that `inputs` and `outputs` give to an axis says
that the file works for other sizes there; `a + b` names an axis as long as two others together.
"""

from __future__ import annotations

import copy
import dataclasses
import warnings
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from packaging import version

from .utils import ParameterFormat, compute_effective_axis_dimension, compute_serialized_parameters_size

if TYPE_CHECKING:
    from transformers import FeatureExtractionMixin, PretrainedConfig, PreTrainedTokenizerBase
    from transformers.image_processing_utils import ImageProcessingMixin
    from transformers.utils import TensorType

DEFAULT_ONNX_OPSET = 11

# 2 GiB: the most that one protocol buffer message can hold.
EXTERNAL_DATA_FORMAT_SIZE_LIMIT = 2 * 1024 * 1024 * 1024

_TOKENS = {0: "batch", 1: "sequence"}


@dataclasses.dataclass
class PatchingSpec:
    """One attribute to replace while a model is exported.

    Args:
        o: the module or object that owns the attribute.
        name: the attribute.
        custom_op: what stands there during the export.
        orig_op: what is put back; looked up on `o` when not given.
        op_wrapper: applied to both before they are set (for static and class methods).
    """

    o: Any
    name: str
    custom_op: Callable
    orig_op: Callable | None = None
    op_wrapper: Callable | None = None

    def _set(self, op):
        setattr(self.o, self.name, op if self.op_wrapper is None else self.op_wrapper(op))


class OnnxConfig(ABC):
    """Inputs, outputs and dummy inputs of the ONNX file of one model and one task."""

    # Which of several files of one feature this is the configuration of; empty for the feature's own.
    part = ""
    default_fixed_batch = 2
    default_fixed_sequence = 8
    default_fixed_num_choices = 4
    torch_onnx_minimum_version = version.parse("1.8")
    _tasks_to_common_outputs = {  # noqa: RUF012 - the name and the type that subclasses of the old package read
        "causal-lm": OrderedDict({"logits": _TOKENS}),
        "default": OrderedDict({"last_hidden_state": _TOKENS}),
        "image-classification": OrderedDict({"logits": {0: "batch"}}),
        "image-segmentation": OrderedDict({"logits": _TOKENS, "pred_boxes": _TOKENS, "pred_masks": _TOKENS}),
        "masked-im": OrderedDict({"logits": _TOKENS}),
        "masked-lm": OrderedDict({"logits": _TOKENS}),
        "multiple-choice": OrderedDict({"logits": {0: "batch", 1: "choice"}}),
        "object-detection": OrderedDict({"logits": _TOKENS, "pred_boxes": _TOKENS}),
        "question-answering": OrderedDict({"start_logits": _TOKENS, "end_logits": _TOKENS}),
        "semantic-segmentation": OrderedDict({"logits": {0: "batch", 1: "num_labels", 2: "height", 3: "width"}}),
        "seq2seq-lm": OrderedDict({"logits": {0: "batch", 1: "decoder_sequence"}}),
        "sequence-classification": OrderedDict({"logits": {0: "batch"}}),
        "token-classification": OrderedDict({"logits": _TOKENS}),
        "vision2seq-lm": OrderedDict({"logits": _TOKENS}),
        "speech2seq-lm": OrderedDict({"logits": _TOKENS}),
    }

    def __init__(
        self, config: PretrainedConfig, task: str = "default", patching_specs: list[PatchingSpec] | None = None
    ):
        self._config = config
        if task not in self._tasks_to_common_outputs:
            raise ValueError(f"{task} is not a supported task; supported: {', '.join(self._tasks_to_common_outputs)}")
        self.task = task
        self._patching_specs = [
            spec if spec.orig_op is not None else dataclasses.replace(spec, orig_op=getattr(spec.o, spec.name))
            for spec in patching_specs or []
        ]

    @classmethod
    def from_model_config(cls, config: PretrainedConfig, task: str = "default") -> OnnxConfig:
        """The configuration for the model that `config` describes."""
        return cls(config, task=task)

    @property
    @abstractmethod
    def inputs(self) -> Mapping[str, Mapping[int, str]]:
        """Input name → {axis: axis name}, in the order of the file's inputs."""

    @property
    def outputs(self) -> Mapping[str, Mapping[int, str]]:
        """Output name → {axis: axis name}, in the order of the file's outputs."""
        return copy.deepcopy(self._tasks_to_common_outputs[self.task])

    @property
    def values_override(self) -> Mapping[str, Any] | None:
        """Model configuration items that have another value while the model is exported and validated."""
        return {"use_cache": False} if hasattr(self._config, "use_cache") else None

    @property
    def default_batch_size(self) -> int:
        """Batch size of the dummy inputs; above 1, so that the exporter cannot take the batch for a constant."""
        return OnnxConfig.default_fixed_batch

    @property
    def default_sequence_length(self) -> int:
        """Sequence length of the dummy inputs, in tokens."""
        return OnnxConfig.default_fixed_sequence

    @property
    def default_num_choices(self) -> int:
        """Number of choices in the dummy inputs of multiple-choice."""
        return OnnxConfig.default_fixed_num_choices

    @property
    def default_onnx_opset(self) -> int:
        """The opset that is exported when none is asked for."""
        return DEFAULT_ONNX_OPSET

    @property
    def atol_for_validation(self) -> float:
        """The largest absolute difference expected between the model and its file."""
        return 1e-5

    @property
    def is_torch_support_available(self) -> bool:
        """Whether the installed torch is at least `torch_onnx_minimum_version`."""
        from parity.environment import version_of

        installed = version_of("torch")
        return installed is not None and version.parse(installed) >= self.torch_onnx_minimum_version

    @staticmethod
    def use_external_data_format(num_parameters: int) -> bool:
        """Whether that many float32 parameters are too many for one protocol buffer message."""
        size = compute_serialized_parameters_size(num_parameters, ParameterFormat.Float)
        return size >= EXTERNAL_DATA_FORMAT_SIZE_LIMIT

    @property
    def dead_inputs(self) -> Mapping[str, str]:
        """Inputs that no output depends on, with the reason; new in parity. They stay inputs of the file."""
        return {}

    def complete_inputs(self, inputs: Mapping[str, Any], parameters: Iterable[str]) -> dict[str, Any]:
        """The arguments of the model's `forward`: the file's inputs and what can be computed from them.

        It is traced into the graph, and the reference model is called with its result too. New in parity; the base
        class adds nothing.

        Args:
            inputs: the file's inputs by name, past key values nested as `generate_dummy_inputs` returns them.
            parameters: the names that the model's `forward` takes.
        """
        return dict(inputs)

    def _generate_dummy_images(
        self, batch_size: int = 2, num_channels: int = 3, image_height: int = 40, image_width: int = 40
    ):
        import numpy as np
        from PIL import Image

        shape = (batch_size, image_height, image_width, num_channels)
        pixels = np.random.default_rng(0).integers(0, 256, size=shape, dtype=np.uint8)
        return [Image.fromarray(image.squeeze()).convert("RGB") for image in pixels]

    def _generate_dummy_audio(
        self, batch_size: int = 2, sampling_rate: int = 22050, time_duration: float = 5.0, frequency: int = 220
    ):
        import numpy as np

        seconds = np.linspace(0, time_duration, int(time_duration * sampling_rate), endpoint=False)
        return [0.5 * np.sin(2 * np.pi * frequency * seconds) for _ in range(batch_size)]

    def generate_dummy_inputs(
        self,
        preprocessor: PreTrainedTokenizerBase | FeatureExtractionMixin | ImageProcessingMixin,
        batch_size: int = -1,
        seq_length: int = -1,
        num_choices: int = -1,
        is_pair: bool = False,
        framework: TensorType | None = None,
        num_channels: int = 3,
        image_width: int = 40,
        image_height: int = 40,
        sampling_rate: int = 22050,
        time_duration: float = 5.0,
        frequency: int = 220,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> Mapping[str, Any]:
        """Inputs of the model's `forward`, made by its own preprocessor; -1 means the default size of that axis.

        Args:
            preprocessor: the model's tokenizer, image processor or feature extractor.
            batch_size: number of rows.
            seq_length: tokens in a row, special tokens included.
            num_choices: choices in a row, for multiple-choice.
            is_pair: whether `seq_length` leaves room for the special tokens of a pair of sentences.
            framework: the kind of tensors, `"pt"`, `"tf"` or `"np"`.
            num_channels, image_width, image_height: size of the dummy images, in pixels, before preprocessing.
            sampling_rate, time_duration, frequency: the dummy sound, in Hz, seconds and Hz.
            tokenizer: deprecated name of `preprocessor`.

        Raises:
            ValueError: both `tokenizer` and a tokenizer as `preprocessor` are given, or the preprocessor is of no
                known kind.
        """
        preprocessor = _one_preprocessor(preprocessor, tokenizer)
        if _is_tokenizer(preprocessor):
            return self._dummy_text(preprocessor, batch_size, seq_length, num_choices, is_pair, framework)
        kind = next(iter(getattr(preprocessor, "model_input_names", None) or [None]))
        batch_size = compute_effective_axis_dimension(batch_size, OnnxConfig.default_fixed_batch)
        if kind == "pixel_values":
            images = self._generate_dummy_images(batch_size, num_channels, image_height, image_width)
            return dict(preprocessor(images=images, return_tensors=framework))
        if kind == "input_features":
            sound = self._generate_dummy_audio(batch_size, sampling_rate, time_duration, frequency)
            return dict(preprocessor(sound, return_tensors=framework))
        raise ValueError(
            f"cannot generate dummy inputs with {type(preprocessor).__name__}: it should be a tokenizer, an image"
            " processor or a feature extractor; give the model's own one, or override generate_dummy_inputs"
        )

    def _dummy_text(self, tokenizer, batch_size, seq_length, num_choices, is_pair, framework):
        batch_size = compute_effective_axis_dimension(batch_size, OnnxConfig.default_fixed_batch)
        seq_length = compute_effective_axis_dimension(
            seq_length, OnnxConfig.default_fixed_sequence, tokenizer.num_special_tokens_to_add(is_pair)
        )
        text = (tokenizer.unk_token or "0") * seq_length
        if self.task != "multiple-choice":
            return dict(tokenizer([text] * batch_size, return_tensors=framework))
        num_choices = compute_effective_axis_dimension(num_choices, OnnxConfig.default_fixed_num_choices)
        rows = [text] * (batch_size * num_choices)
        encoded = tokenizer(rows, text_pair=rows)
        for name, values in encoded.items():
            encoded[name] = [values[i : i + num_choices] for i in range(0, len(values), num_choices)]
        return dict(encoded.convert_to_tensors(tensor_type=framework))

    def generate_dummy_inputs_onnxruntime(self, reference_model_inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """The inputs that ONNX Runtime gets where the model gets `reference_model_inputs`; the same by default."""
        return reference_model_inputs

    def patch_ops(self):
        """Put every `PatchingSpec`'s custom op in place."""
        for spec in self._patching_specs:
            spec._set(spec.custom_op)

    def restore_ops(self):
        """Put back what `patch_ops` replaced."""
        for spec in self._patching_specs:
            spec._set(spec.orig_op)

    @classmethod
    def flatten_output_collection_property(cls, name: str, field: Iterable[Any]) -> dict[str, Any]:
        """Names for the elements of a nested input or output: `name.0`, `name.1`, … over all its levels."""
        return {f"{name}.{index}": item for index, item in enumerate(chain.from_iterable(field))}


class OnnxConfigWithPast(OnnxConfig, ABC):
    """A decoder's configuration, with past key values as inputs and outputs when `use_past` is true."""

    def __init__(
        self,
        config: PretrainedConfig,
        task: str = "default",
        patching_specs: list[PatchingSpec] | None = None,
        use_past: bool = False,
    ):
        super().__init__(config, task=task, patching_specs=patching_specs)
        self.use_past = use_past

    @classmethod
    def with_past(cls, config: PretrainedConfig, task: str = "default") -> OnnxConfigWithPast:
        """The configuration with past key values."""
        return cls(config, task=task, use_past=True)

    @property
    def outputs(self) -> Mapping[str, Mapping[int, str]]:
        outputs = super().outputs
        if self.use_past:
            self.fill_with_past_key_values_(outputs, direction="outputs")
        return outputs

    @property
    def values_override(self) -> Mapping[str, Any] | None:
        return {"use_cache": self.use_past} if hasattr(self._config, "use_cache") else None

    @property
    def num_layers(self) -> int:
        """Number of layers with a cache. Override it where the model's configuration has another name for it."""
        return self._config_item("num_layers", "the number of layers")

    @property
    def num_attention_heads(self) -> int:
        """Number of heads of a cache. Override it where the model's configuration has another name for it."""
        return self._config_item("num_attention_heads", "the number of attention heads")

    def _config_item(self, name, meaning):
        if not hasattr(self._config, name):
            raise AttributeError(
                f"{type(self._config).__name__} has no {name} ({meaning}): override the property {name} of"
                f" {type(self).__name__}"
            )
        return getattr(self._config, name)

    @property
    def _cache_layers(self) -> int:
        return self.num_layers

    @property
    def _cache_heads(self) -> int:
        return self.num_attention_heads

    def _head_size(self, heads: int) -> int:
        explicit = getattr(self._config, "d_kv", None) or getattr(self._config, "head_dim", None)
        return explicit or self._config.hidden_size // heads

    def complete_inputs(self, inputs: Mapping[str, Any], parameters: Iterable[str]) -> dict[str, Any]:
        """Adds the all-ones mask that the model would assume, and position ids that follow the mask.

        `generate` passes the same position ids; without them a left-padded row of a model with absolute positions is
        counted from its padding. Shapes: mask (batch, past + sequence), position ids (batch, sequence).
        """
        arguments, parameters = dict(inputs), set(parameters)
        tokens = arguments.get("input_ids")
        if tokens is None or tokens.dim() != 2:
            return arguments
        past = arguments.get("past_key_values")
        if "attention_mask" in parameters and "attention_mask" not in arguments:
            ones = tokens.new_ones(tokens.shape)
            if past:
                ones = _concatenate([past[0][0].new_ones(past[0][0][:, 0, :, 0].shape).to(tokens.dtype), ones])
            arguments["attention_mask"] = ones
        if "position_ids" in parameters and "position_ids" not in arguments:
            mask = arguments["attention_mask"].to(tokens.dtype)
            positions = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 0)
            arguments["position_ids"] = positions[:, -tokens.shape[1] :]
        return arguments

    def generate_dummy_inputs(
        self,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int = -1,
        seq_length: int = -1,
        is_pair: bool = False,
        framework: TensorType | None = None,
    ) -> Mapping[str, Any]:
        inputs = dict(
            OnnxConfig.generate_dummy_inputs(
                self, tokenizer, batch_size=batch_size, seq_length=seq_length, is_pair=is_pair, framework=framework
            )
        )
        if self.use_past:
            batch, length = inputs["input_ids"].shape
            past_length = length + 2  # never the sequence length itself: the two axes must not be taken for one
            if "attention_mask" in inputs:
                inputs["attention_mask"] = _lengthened(inputs["attention_mask"], past_length)
            shape = (batch, self._cache_heads, past_length, self._head_size(self._cache_heads))
            inputs["past_key_values"] = _empty_caches(self._cache_layers, shape, shape)
        return inputs

    def fill_with_past_key_values_(
        self, inputs_or_outputs: Mapping[str, Mapping[int, str]], direction: str, inverted_values_shape: bool = False
    ):
        """Adds the caches of every layer to `inputs_or_outputs`, in place.

        Args:
            direction: `"inputs"` (as long as the past) or `"outputs"` (as long as past and sequence).
            inverted_values_shape: the values' length is on axis 1 instead of 2.
        """
        name, length = self._direction(direction, "past_sequence", "past_sequence + sequence")
        for layer in range(self._cache_layers):
            inputs_or_outputs[f"{name}.{layer}.key"] = {0: "batch", 2: length}
            inputs_or_outputs[f"{name}.{layer}.value"] = {0: "batch", 1 if inverted_values_shape else 2: length}

    @staticmethod
    def _direction(direction, past, present):
        if direction not in ("inputs", "outputs"):
            raise ValueError(f'direction: got {direction!r}, should be "inputs" or "outputs"')
        return ("past_key_values", past) if direction == "inputs" else ("present", present)

    def _flatten_past_key_values_(self, flattened_output, name, idx, t):
        flattened_output[f"{name}.{idx}.key"] = t[0]
        flattened_output[f"{name}.{idx}.value"] = t[1]

    def flatten_output_collection_property(self, name: str, field: Iterable[Any]) -> dict[str, Any]:
        if name not in ("present", "past_key_values"):
            return super().flatten_output_collection_property(name, field)
        flattened = {}
        for layer, tensors in enumerate(field):
            self._flatten_past_key_values_(flattened, name, layer, tensors)
        return flattened


class OnnxSeq2SeqConfigWithPast(OnnxConfigWithPast):
    """An encoder-decoder's configuration; its caches hold the decoder's own and the cross-attention's keys and values.

    There is one cache for each decoder layer: the number of encoder layers has no part in it. The task causal-lm is
    the decoder alone, with a decoder's inputs and caches.
    """

    @property
    def _decoder_alone(self) -> bool:
        return self.task == "causal-lm"

    @property
    def outputs(self) -> Mapping[str, Mapping[int, str]]:
        if self._decoder_alone:
            return OnnxConfigWithPast.outputs.fget(self)
        outputs = OnnxConfig.outputs.fget(self)
        for name, axes in outputs.items():
            side = "encoder_sequence" if "encoder" in name else "decoder_sequence"
            for axis, axis_name in axes.items():
                axes[axis] = side if "sequence" in axis_name else axis_name
        if self.use_past:
            self.fill_with_past_key_values_(outputs, direction="outputs")
        return outputs

    @property
    def num_layers(self) -> tuple[int, int]:
        """Number of (encoder, decoder) layers."""
        return self._pair("num_layers", "num_decoder_layers", "encoder_layers", "decoder_layers")

    @property
    def num_attention_heads(self) -> tuple[int, int]:
        """Number of (encoder, decoder) attention heads."""
        return self._pair("num_attention_heads", None, "encoder_attention_heads", "decoder_attention_heads")

    def _pair(self, both, decoder, encoder_name, decoder_name):
        if hasattr(self._config, encoder_name) and hasattr(self._config, decoder_name):
            return getattr(self._config, encoder_name), getattr(self._config, decoder_name)
        if not hasattr(self._config, both):
            raise AttributeError(
                f"{type(self._config).__name__} has neither {both} nor {encoder_name} and {decoder_name}: override the"
                f" property {both} of {type(self).__name__}"
            )
        count = getattr(self._config, both)
        return count, (getattr(self._config, decoder, None) if decoder else None) or count

    @property
    def dead_inputs(self) -> Mapping[str, str]:
        if not self.use_past or self._decoder_alone:
            return {}
        return {"input_ids": "the cross-attention cache stands for the encoder and all that it read"}

    def prefill(self) -> OnnxSeq2SeqConfigWithPast:
        """The configuration of a second file: the encoder's inputs in, the cross-attention caches out.

        With it generation needs no PyTorch: decoding starts from these caches and an empty past of the decoder. The
        outputs `present.N.encoder.…` (batch, heads, encoder sequence, head size) are the decoder file's inputs
        `past_key_values.N.encoder.…`. New in parity.

        Raises:
            ValueError: a configuration without past, or of the decoder alone, has no cross-attention caches.
        """
        if not self.dead_inputs:
            raise ValueError(
                f"{self.task}: has no cross-attention caches to fill; only an encoder-decoder with past has"
            )
        return _prefill_class(type(self))(self._config, self.task, list(self._patching_specs), use_past=True)

    @property
    def _cache_layers(self) -> int:
        return self.num_layers[1]

    @property
    def _cache_heads(self) -> int:
        return self.num_attention_heads[1]

    def complete_inputs(self, inputs: Mapping[str, Any], parameters: Iterable[str]) -> dict[str, Any]:
        return super().complete_inputs(inputs, parameters) if self._decoder_alone else dict(inputs)

    def generate_dummy_inputs(
        self,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int = -1,
        seq_length: int = -1,
        is_pair: bool = False,
        framework: TensorType | None = None,
    ) -> Mapping[str, Any]:
        if self._decoder_alone:
            return super().generate_dummy_inputs(tokenizer, batch_size, seq_length, is_pair, framework)

        def text():
            return OnnxConfig.generate_dummy_inputs(
                self, tokenizer, batch_size=batch_size, seq_length=seq_length, is_pair=is_pair, framework=framework
            )

        inputs = dict(text())
        decoder = {f"decoder_{name}": tensor for name, tensor in text().items()}
        if self.use_past:
            batch, encoder_length = inputs["input_ids"].shape
            # Two tokens at least: a step of one is a shape that tracers take for a constant.
            length = max(2, encoder_length // 4)
            past_length = length + 3
            decoder = {name: tensor[:, -length:] for name, tensor in decoder.items()}
            if "decoder_attention_mask" in decoder:
                decoder["decoder_attention_mask"] = _lengthened(decoder["decoder_attention_mask"], past_length)
            heads = self._cache_heads
            inputs["past_key_values"] = _empty_caches(
                self._cache_layers,
                *[(batch, heads, past_length, self._head_size(heads))] * 2,
                *[(batch, heads, encoder_length, self._head_size(heads))] * 2,
            )
        return {**inputs, **decoder}

    def fill_with_past_key_values_(self, inputs_or_outputs: Mapping[str, Mapping[int, str]], direction: str):
        """Adds the caches of every decoder layer to `inputs_or_outputs`, in place."""
        if self._decoder_alone:
            super().fill_with_past_key_values_(inputs_or_outputs, direction)
            return
        name, length = self._direction(direction, "past_decoder_sequence", "past_decoder_sequence + decoder_sequence")
        for layer in range(self._cache_layers):
            for side, axis_name in (("decoder", length), ("encoder", "encoder_sequence")):
                for part in ("key", "value"):
                    inputs_or_outputs[f"{name}.{layer}.{side}.{part}"] = {0: "batch", 2: axis_name}

    def _flatten_past_key_values_(self, flattened_output, name, idx, t):
        if self._decoder_alone:
            super()._flatten_past_key_values_(flattened_output, name, idx, t)
            return
        for index, part in enumerate(("decoder.key", "decoder.value", "encoder.key", "encoder.value")):
            flattened_output[f"{name}.{idx}.{part}"] = t[index]


def _prefill_class(base: type[OnnxSeq2SeqConfigWithPast]) -> type[OnnxSeq2SeqConfigWithPast]:
    """`base` cut down to the encoder's inputs and the cross-attention caches, whatever it overrides."""

    class Prefill(base):
        part = "prefill"
        dead_inputs: Mapping[str, str] = MappingProxyType({})

        @property
        def inputs(self):
            later = ("decoder_", "past_key_values.")
            return OrderedDict((name, axes) for name, axes in super().inputs.items() if not name.startswith(later))

        @property
        def outputs(self):
            return OrderedDict((name, axes) for name, axes in super().outputs.items() if ".encoder." in name)

        def complete_inputs(self, inputs, parameters):
            # The decoder has to run for its layers to cast the encoder's answer; what it reads has no part in that.
            return {**inputs, "decoder_input_ids": inputs["input_ids"][:, :1] * 0}

        def generate_dummy_inputs(self, *args, **kwargs):
            made = super().generate_dummy_inputs(*args, **kwargs)
            return {name: tensor for name, tensor in made.items() if name in self.inputs}

    return Prefill


def _is_tokenizer(preprocessor) -> bool:
    return hasattr(preprocessor, "num_special_tokens_to_add")


def _one_preprocessor(preprocessor, tokenizer):
    """`preprocessor`, or the deprecated `tokenizer` argument with a warning.

    Raises:
        ValueError: both are tokenizers.
    """
    if tokenizer is None:
        return preprocessor
    if _is_tokenizer(preprocessor):
        raise ValueError("both a tokenizer and a preprocessor are given, should be one: give only the preprocessor")
    warnings.warn("the argument tokenizer is deprecated: use preprocessor", FutureWarning, stacklevel=3)
    return tokenizer


def _concatenate(tensors):
    import torch

    return torch.cat(tensors, dim=1)


def _lengthened(mask, past_length):
    """The mask (batch, sequence) with ones for `past_length` earlier tokens in front."""
    return _concatenate([mask.new_ones(mask.shape[0], past_length), mask])


def _empty_caches(layers, *shapes):
    """For every layer one tuple of zero tensors of the given shapes."""
    import torch

    return [tuple(torch.zeros(shape) for shape in shapes) for _ in range(layers)]
