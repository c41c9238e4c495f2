"""Configurations of ONNX files with past key values as inputs and outputs: decoders and encoder-decoders."""

from __future__ import annotations

from abc import ABC
from collections import OrderedDict
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from parity.axes import Role, is_text, role_of, text_of_output
from parity.errors import UsageError

from .base import OnnxConfig, PatchingSpec

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedTokenizerBase
    from transformers.utils import TensorType


# The number of tokens by which the past of the dummy inputs is longer than their text.
_PAST_BEYOND_TEXT = 2


class OnnxConfigWithPast(OnnxConfig, ABC):
    """A decoder's configuration, with past key values as inputs and outputs if `use_past` is true."""

    def __init__(
        self,
        config: PretrainedConfig,
        task: str = "default",
        patching_specs: list[PatchingSpec] | None = None,
        use_past: bool = False,
    ) -> None:
        super().__init__(config, task=task, patching_specs=patching_specs)
        self.use_past = use_past

    @classmethod
    def with_past(cls, config: PretrainedConfig, task: str = "default") -> OnnxConfigWithPast:
        """The configuration with past key values."""
        return cls(config, task=task, use_past=True)

    @property
    def outputs(self) -> Mapping[str, Mapping[int, str]]:
        outputs = OrderedDict(super().outputs)
        if self.use_past:
            self.fill_with_past_key_values_(outputs, direction="outputs")
        return outputs

    @property
    def values_override(self) -> Mapping[str, Any] | None:
        return {"use_cache": self.use_past} if hasattr(self._config, "use_cache") else None

    @property
    def num_layers(self) -> int:
        """Number of layers with a cache. Override it if the model's configuration has another name for it."""
        return self._config_item("num_layers", "the number of layers")

    @property
    def num_attention_heads(self) -> int:
        """Number of heads of a cache. Override it if the model's configuration has another name for it."""
        return self._config_item("num_attention_heads", "the number of attention heads")

    def _config_item(self, name: str, meaning: str) -> int:
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

    def head_size(self, heads: int) -> int:
        """The size of each of these heads of a cache. Override it if the model's configuration does not give it."""
        explicit = getattr(self._config, "d_kv", None) or getattr(self._config, "head_dim", None)
        return explicit or self._config.hidden_size // heads

    def complete_inputs(self, inputs: Mapping[str, Any], parameters: Iterable[str]) -> dict[str, Any]:
        """Add the all-ones mask that the model would assume, and position ids that follow the mask.

        `generate` passes the same position ids; without them a left-padded row of a model with absolute positions is
        counted from its padding. Shapes: mask (batch, past + sequence), position ids (batch, sequence).
        """
        arguments, names = dict(inputs), set(parameters)
        tokens = arguments.get("input_ids")
        if tokens is None or tokens.dim() != 2:
            return arguments
        past = arguments.get("past_key_values")
        if "attention_mask" in names and "attention_mask" not in arguments:
            ones = tokens.new_ones(tokens.shape)
            if past:
                ones = _concatenate([past[0][0].new_ones(past[0][0][:, 0, :, 0].shape).to(tokens.dtype), ones])
            arguments["attention_mask"] = ones
        if "position_ids" in names and "position_ids" not in arguments:
            mask = arguments["attention_mask"].to(tokens.dtype)
            positions = (mask.cumsum(-1) - 1).masked_fill(mask == 0, 0)
            arguments["position_ids"] = positions[:, -tokens.shape[1] :]
        return arguments

    def generate_dummy_inputs(  # type: ignore[override]  # the old package's signature: text alone
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
            # Never the sequence length itself: the two axes must not be mistaken for one.
            past_length = length + _PAST_BEYOND_TEXT
            if "attention_mask" in inputs:
                inputs["attention_mask"] = _lengthen_mask(inputs["attention_mask"], past_length)
            shape = (batch, self._cache_heads, past_length, self.head_size(self._cache_heads))
            inputs["past_key_values"] = _empty_caches(self._cache_layers, shape, shape)
        return inputs

    @property
    def _tokens_of_export(self) -> int:
        room = self._longest_text
        own = super()._tokens_of_export
        return min(own, max(1, (room - _PAST_BEYOND_TEXT) // 2)) if room and self.use_past else own

    def fill_with_past_key_values_(
        self,
        inputs_or_outputs: MutableMapping[str, Mapping[int, str]],
        direction: str,
        inverted_values_shape: bool = False,
    ) -> None:
        """Add the caches of every layer to `inputs_or_outputs`, in place.

        Args:
            inputs_or_outputs: name → {axis: axis name}.
            direction: `"inputs"` (as long as the past) or `"outputs"` (as long as past and sequence).
            inverted_values_shape: whether the values' length is on axis 1 instead of 2.
        """
        name, length = self._direction(direction, "past_sequence", "past_sequence + sequence")
        for layer in range(self._cache_layers):
            inputs_or_outputs[f"{name}.{layer}.key"] = {0: "batch", 2: length}
            inputs_or_outputs[f"{name}.{layer}.value"] = {0: "batch", 1 if inverted_values_shape else 2: length}

    @staticmethod
    def _direction(direction: str, past: str, present: str) -> tuple[str, str]:
        if direction not in ("inputs", "outputs"):
            raise UsageError(f'direction: got {direction!r}, should be "inputs" or "outputs"')
        return ("past_key_values", past) if direction == "inputs" else ("present", present)

    def _flatten_past_key_values_(
        self, flattened_output: MutableMapping[str, Any], name: str, idx: int, t: Sequence[Any]
    ) -> None:
        flattened_output[f"{name}.{idx}.key"] = t[0]
        flattened_output[f"{name}.{idx}.value"] = t[1]

    def flatten_output_collection_property(  # type: ignore[override]  # no class method in the old package either
        self, name: str, field: Iterable[Any]
    ) -> dict[str, Any]:
        if name not in ("present", "past_key_values"):
            return super().flatten_output_collection_property(name, field)
        flattened: dict[str, Any] = {}
        for layer, tensors in enumerate(field):
            self._flatten_past_key_values_(flattened, name, layer, tensors)
        return flattened


class OnnxSeq2SeqConfigWithPast(OnnxConfigWithPast):
    """An encoder-decoder's configuration; its caches hold the decoder's own and the cross-attention's keys and values.

    There is one cache for each decoder layer; the number of encoder layers does not matter. The task causal-lm is the
    decoder alone, with a decoder's inputs and caches.
    """

    @property
    def _decoder_alone(self) -> bool:
        return self.task == "causal-lm"

    @property
    def outputs(self) -> Mapping[str, Mapping[int, str]]:
        if self._decoder_alone:
            return super().outputs
        own = self._task_outputs()
        for name, axes in own.items():
            for axis, axis_name in axes.items():
                axes[axis] = text_of_output(name) if is_text(axis_name) else axis_name
        outputs: OrderedDict[str, Mapping[int, str]] = OrderedDict(own)
        if self.use_past:
            self.fill_with_past_key_values_(outputs, direction="outputs")
        return outputs

    @property
    def num_layers(self) -> tuple[int, int]:  # type: ignore[override]  # the old package's: a pair
        """Number of (encoder, decoder) layers."""
        return self._pair("num_layers", "num_decoder_layers", "encoder_layers", "decoder_layers")

    @property
    def num_attention_heads(self) -> tuple[int, int]:  # type: ignore[override]  # the old package's: a pair
        """Number of (encoder, decoder) attention heads."""
        return self._pair("num_attention_heads", None, "encoder_attention_heads", "decoder_attention_heads")

    def _pair(self, both: str, decoder: str | None, encoder_name: str, decoder_name: str) -> tuple[int, int]:
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
            UsageError: a configuration without past, or of the decoder alone, has no cross-attention caches (a
                ValueError).
        """
        if not self.dead_inputs:
            raise UsageError(
                f"{self.task}: has no cross-attention caches to fill; only an encoder-decoder with past has"
            )
        return prefill_class(type(self))(self._config, self.task, list(self._patching_specs), use_past=True)

    @property
    def _cache_layers(self) -> int:
        return self.num_layers[1]

    @property
    def _cache_heads(self) -> int:
        return self.num_attention_heads[1]

    def complete_inputs(self, inputs: Mapping[str, Any], parameters: Iterable[str]) -> dict[str, Any]:
        return super().complete_inputs(inputs, parameters) if self._decoder_alone else dict(inputs)

    def generate_dummy_inputs(  # type: ignore[override]  # the old package's signature: text alone
        self,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int = -1,
        seq_length: int = -1,
        is_pair: bool = False,
        framework: TensorType | None = None,
    ) -> Mapping[str, Any]:
        if self._decoder_alone:
            return super().generate_dummy_inputs(tokenizer, batch_size, seq_length, is_pair, framework)

        def text() -> Mapping[str, Any]:
            return OnnxConfig.generate_dummy_inputs(
                self, tokenizer, batch_size=batch_size, seq_length=seq_length, is_pair=is_pair, framework=framework
            )

        inputs = dict(text())
        decoder = {f"decoder_{name}": tensor for name, tensor in self._in_table(text(), decoder=True).items()}
        if self.use_past:
            batch, encoder_length = inputs["input_ids"].shape
            # At least two tokens: tracers take the shape of a step of one token for a constant.
            length = max(2, encoder_length // 4)
            room = self._longest_text
            past_length = min(length + 3, room - length) if room else length + 3
            decoder = {name: tensor[:, -length:] for name, tensor in decoder.items()}
            if "decoder_attention_mask" in decoder:
                decoder["decoder_attention_mask"] = _lengthen_mask(decoder["decoder_attention_mask"], past_length)
            heads = self._cache_heads
            inputs["past_key_values"] = _empty_caches(
                self._cache_layers,
                *[(batch, heads, past_length, self.head_size(heads))] * 2,
                *[(batch, heads, encoder_length, self.head_size(heads))] * 2,
            )
        return {**inputs, **decoder}

    def fill_with_past_key_values_(  # type: ignore[override]  # the old package's signature takes fewer
        self, inputs_or_outputs: MutableMapping[str, Mapping[int, str]], direction: str
    ) -> None:
        """Add the caches of every decoder layer to `inputs_or_outputs`, in place."""
        if self._decoder_alone:
            super().fill_with_past_key_values_(inputs_or_outputs, direction)
            return
        name, length = self._direction(direction, "past_decoder_sequence", "past_decoder_sequence + decoder_sequence")
        for layer in range(self._cache_layers):
            for side, axis_name in (("decoder", length), ("encoder", "encoder_sequence")):
                for part in ("key", "value"):
                    inputs_or_outputs[f"{name}.{layer}.{side}.{part}"] = {0: "batch", 2: axis_name}

    def _flatten_past_key_values_(
        self, flattened_output: MutableMapping[str, Any], name: str, idx: int, t: Sequence[Any]
    ) -> None:
        if self._decoder_alone:
            super()._flatten_past_key_values_(flattened_output, name, idx, t)
            return
        for index, part in enumerate(("decoder.key", "decoder.value", "encoder.key", "encoder.value")):
            flattened_output[f"{name}.{idx}.{part}"] = t[index]


def prefill_class(base: type[OnnxSeq2SeqConfigWithPast]) -> type[OnnxSeq2SeqConfigWithPast]:
    """`base` reduced to the encoder's inputs and the cross-attention caches, whatever it overrides."""

    class Prefill(base):  # type: ignore[valid-type, misc]  # known at run time only
        part = "prefill"
        dead_inputs: Mapping[str, str] = MappingProxyType({})

        @property
        def inputs(self) -> OrderedDict[str, Mapping[int, str]]:
            return OrderedDict(
                (name, axes)
                for name, axes in super().inputs.items()
                if not name.startswith("decoder_") and role_of(name) is not Role.CACHE
            )

        @property
        def outputs(self) -> OrderedDict[str, Mapping[int, str]]:
            return OrderedDict((name, axes) for name, axes in super().outputs.items() if ".encoder." in name)

        def complete_inputs(self, inputs: Mapping[str, Any], parameters: Iterable[str]) -> dict[str, Any]:
            # The decoder has to run, because its layers project the encoder's output; its own inputs do not matter.
            first = next(iter(inputs.values()))
            return {**inputs, "decoder_input_ids": first.new_zeros((first.shape[0], 1)).long()}

        def generate_dummy_inputs(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            inputs = super().generate_dummy_inputs(*args, **kwargs)
            return {name: tensor for name, tensor in inputs.items() if name in self.inputs}

    return Prefill


def _concatenate(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    import torch

    return torch.cat(tensors, dim=1)


def _lengthen_mask(mask: torch.Tensor, past_length: int) -> torch.Tensor:
    """The mask (batch, sequence) with ones for `past_length` earlier tokens in front."""
    return _concatenate([mask.new_ones(mask.shape[0], past_length), mask])


def _empty_caches(layers: int, *shapes: tuple[int, ...]) -> list[tuple[torch.Tensor, ...]]:
    """For every layer one tuple of zero tensors of these shapes."""
    import torch

    return [tuple(torch.zeros(shape) for shape in shapes) for _ in range(layers)]
