"""The configuration of an ONNX file without past: inputs, outputs, dynamic axes, dummy inputs, overrides.

An axis is a claim: if `inputs` and `outputs` give a name to an axis, the file works at other sizes of it; `a + b`
names an axis as long as two others together.
"""

from __future__ import annotations

import dataclasses
import warnings
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

from packaging import version

from parity.axes import Role, role_of
from parity.errors import UsageError
from parity.tasks import CommonOutputs
from parity.turns import SUBSTITUTES

from .images import channels_of, colours_of, with_channels
from .sizes import ParameterFormat, compute_effective_axis_dimension, compute_serialized_parameters_size
from .tokens import positions_of, requested_inputs, token_types_of, vocabulary_of, within_vocabulary

if TYPE_CHECKING:
    import numpy as np
    import PIL.Image
    from transformers import (
        FeatureExtractionMixin,
        PretrainedConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
        ProcessorMixin,
    )
    from transformers.image_processing_utils import ImageProcessingMixin
    from transformers.utils import TensorType

    Preprocessor: TypeAlias = PreTrainedTokenizerBase | FeatureExtractionMixin | ImageProcessingMixin | ProcessorMixin

DEFAULT_ONNX_OPSET = 11

# 2 GiB: the most that one protocol buffer message can hold.
EXTERNAL_DATA_FORMAT_SIZE_LIMIT = 2 * 1024 * 1024 * 1024


@dataclasses.dataclass
class PatchingSpec:
    """One attribute to replace while a model is exported.

    Args:
        o: the module or object that owns the attribute.
        name: the attribute.
        custom_op: its value during the export.
        orig_op: its value otherwise; by default looked up on `o`. The value that the export replaces is restored.
        op_wrapper: applied to both before they are set (for static and class methods).
    """

    o: Any
    name: str
    custom_op: Callable[..., Any]
    orig_op: Callable[..., Any] | None = None
    op_wrapper: Callable[..., Any] | None = None

    def _put(self) -> None:
        custom = self.custom_op if self.op_wrapper is None else self.op_wrapper(self.custom_op)
        SUBSTITUTES.put(self.o, self.name, custom, self)

    def _remove(self) -> None:
        SUBSTITUTES.remove(self.o, self.name, self)


class OnnxConfig(ABC):
    """Inputs, outputs and dummy inputs of the ONNX file of one model and one task."""

    # The part of the model, if a feature has several files; empty for the feature's own file.
    part = ""
    default_fixed_batch = 2
    default_fixed_sequence = 8
    default_fixed_num_choices = 4
    torch_onnx_minimum_version = version.parse("1.8")
    _tasks_to_common_outputs: Mapping[str, Mapping[str, Mapping[int, str]]] = CommonOutputs()

    def __init__(
        self, config: PretrainedConfig, task: str = "default", patching_specs: list[PatchingSpec] | None = None
    ) -> None:
        self._config = config
        if task not in self._tasks_to_common_outputs:
            raise UsageError(f"{task} is not a supported task; supported: {', '.join(self._tasks_to_common_outputs)}")
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
        return self._task_outputs()

    def _task_outputs(self) -> OrderedDict[str, dict[int, str]]:
        """The outputs of the task, before a subclass changes them; a fresh copy that may be changed."""
        return OrderedDict((name, dict(axes)) for name, axes in self._tasks_to_common_outputs[self.task].items())

    @property
    def values_override(self) -> Mapping[str, Any] | None:
        """Items of the model's configuration that have another value while the model is exported and validated."""
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
        """The opset of the export if none is requested."""
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

    @property
    def axis_sizes(self) -> Mapping[str, range]:
        """Axis name → valid sizes, for axes of the inputs that do not take every size from 1 up; new in parity."""
        return {}

    @property
    def pooled_tokens(self) -> Mapping[str, int]:
        """Outputs computed from one token's hidden state: name → place of the token in the text; new in parity.

        Only outputs whose token attends to nothing if padding replaces it, because its window sees no further.
        """
        return {}

    def longest_sequence(self, model: PreTrainedModel) -> int | None:
        """The longest sequence that the model takes, in tokens; None if there is no limit. New in parity.

        The base class reads the length of the position table from the model's configuration; a model that has the
        item but no table overrides it.
        """
        longest = positions_of(model.config)
        if longest is None:
            return None
        # Positions that start after the padding index of their table (roberta) leave that many fewer.
        tables = [module for name, module in model.named_modules() if name.endswith("position_embeddings")]
        padding = [table.padding_idx for table in tables if getattr(table, "padding_idx", None) is not None]
        return longest - 1 - max(padding, default=-1)

    def complete_inputs(self, inputs: Mapping[str, Any], parameters: Iterable[str]) -> dict[str, Any]:
        """The arguments of the model's `forward`: the file's inputs, and arguments that are computed from them.

        It is traced into the graph, and its result is also passed to the reference model. New in parity; the base class
        adds nothing.

        Args:
            inputs: the file's inputs by name, past key values nested as `generate_dummy_inputs` returns them.
            parameters: the names that the model's `forward` takes.
        """
        return dict(inputs)

    def _generate_dummy_images(
        self, batch_size: int = 2, num_channels: int = 3, image_height: int = 40, image_width: int = 40
    ) -> list[PIL.Image.Image]:
        import numpy as np
        from PIL import Image

        shape = (batch_size, image_height, image_width, num_channels)
        pixels = np.random.default_rng(0).integers(0, 256, size=shape, dtype=np.uint8)
        return [Image.fromarray(image.squeeze()).convert("L" if num_channels == 1 else "RGB") for image in pixels]

    def _generate_dummy_audio(
        self, batch_size: int = 2, sampling_rate: int = 22050, time_duration: float = 5.0, frequency: int = 220
    ) -> list[np.ndarray]:
        import numpy as np

        seconds = np.linspace(0, time_duration, int(time_duration * sampling_rate), endpoint=False)
        return [0.5 * np.sin(2 * np.pi * frequency * seconds) for _ in range(batch_size)]

    def generate_dummy_inputs(  # noqa: PLR0913 - the signature that users call
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
            UsageError: both `tokenizer` and a tokenizer as `preprocessor` are given, or the preprocessor is of no known
                kind (a ValueError).
        """
        preprocessor = one_preprocessor(preprocessor, tokenizer)
        if _is_tokenizer(preprocessor):
            return self._dummy_text(preprocessor, batch_size, seq_length, num_choices, is_pair, framework)
        kind = next(iter(getattr(preprocessor, "model_input_names", None) or [None]))
        batch_size = compute_effective_axis_dimension(batch_size, self.default_batch_size)
        if kind == "pixel_values":
            import numpy as np

            grey = colours_of(preprocessor) == 1
            images: list[Any] = self._generate_dummy_images(
                batch_size, 1 if grey else num_channels, image_height, image_width
            )
            # transformers 4 takes no image without an axis for its colours.
            images = [np.asarray(image)[..., None] for image in images] if grey else images
            inputs = dict(preprocessor(images=images, return_tensors=framework))
            return {**inputs, kind: with_channels(inputs[kind], channels_of(self._config))}
        if kind in ("input_features", "input_values"):
            sound = self._generate_dummy_audio(batch_size, sampling_rate, time_duration, frequency)
            # Its own rate, because it warns without any.
            rate = {"sampling_rate": preprocessor.sampling_rate} if hasattr(preprocessor, "sampling_rate") else {}
            return dict(preprocessor(sound, return_tensors=framework, **rate))
        raise UsageError(
            f"cannot generate dummy inputs with {type(preprocessor).__name__}: it should be a tokenizer, an image"
            " processor or a feature extractor; give the model's own one, or override generate_dummy_inputs"
        )

    def _dummy_text(
        self,
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int,
        seq_length: int,
        num_choices: int,
        is_pair: bool,
        framework: TensorType | None,
    ) -> dict[str, Any]:
        batch_size = compute_effective_axis_dimension(batch_size, self.default_batch_size)
        seq_length = compute_effective_axis_dimension(
            seq_length, self._tokens_of_export, tokenizer.num_special_tokens_to_add(is_pair)
        )
        text = (tokenizer.unk_token or "0") * seq_length
        requests = {f"return_{name}": True for name in requested_inputs(tokenizer, self.inputs)}
        if self.task != "multiple-choice":
            return self._in_table(tokenizer([text] * batch_size, return_tensors=framework, **requests))
        num_choices = compute_effective_axis_dimension(num_choices, self.default_num_choices)
        rows = batch_size * num_choices
        first, second = self._lengths_of_pair(seq_length, tokenizer.num_special_tokens_to_add(True))
        word = tokenizer.unk_token or "0"
        encoded = tokenizer([word * first] * rows, text_pair=[word * second] * rows, **requests)
        for name, values in encoded.items():
            encoded[name] = [values[i : i + num_choices] for i in range(0, rows, num_choices)]
        return self._in_table(encoded.convert_to_tensors(tensor_type=framework))

    def _in_table(self, inputs: Mapping[str, Any], *, decoder: bool = False) -> dict[str, Any]:
        """The inputs, with token ids and types limited to the model's tables, or to its decoder's if it has its own."""
        sizes = {
            Role.TOKENS: vocabulary_of(self._config, decoder=decoder),
            Role.TOKEN_TYPES: token_types_of(self._config),
        }
        return {name: within_vocabulary(ids, sizes.get(role_of(name))) for name, ids in inputs.items()}

    @property
    def _longest_text(self) -> int | None:
        """The most tokens of a text by the model's configuration; None if it does not say."""
        return positions_of(self._config)

    @property
    def _tokens_of_export(self) -> int:
        """The tokens of a dummy text, special ones included: the default, or fewer if the model takes fewer."""
        return min(self.default_sequence_length, self._longest_text or self.default_sequence_length)

    def _lengths_of_pair(self, length: int, special: int) -> tuple[int, int]:
        """The lengths of two texts that together fit into the model; `length` each if possible."""
        room = self._longest_text
        if room is None or 2 * length + special <= room:
            return length, length
        both = max(0, room - special)
        return both // 2, both - both // 2

    def generate_dummy_inputs_onnxruntime(self, reference_model_inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """The inputs of ONNX Runtime if the model gets `reference_model_inputs`; the same by default."""
        return reference_model_inputs

    @property
    def refusal(self) -> str:
        """Why the installed packages cannot write the ONNX file of this configuration; empty if they can."""
        return ""

    def patch_ops(self) -> None:
        """Replace the attribute of every `PatchingSpec` by its custom op."""
        for spec in self._patching_specs:
            spec._put()

    def restore_ops(self) -> None:
        """Restore the attributes that `patch_ops` replaced."""
        for spec in self._patching_specs:
            spec._remove()

    @classmethod
    def flatten_output_collection_property(cls, name: str, field: Iterable[Any]) -> dict[str, Any]:
        """Names for the elements of a nested input or output: `name.0`, `name.1`, … over all its levels."""
        items = list(field)
        # One tensor for each layer, as with hidden states and attentions, is no further level.
        elements = items if any(hasattr(item, "shape") for item in items) else chain.from_iterable(items)
        return {f"{name}.{index}": item for index, item in enumerate(elements)}


def _is_tokenizer(preprocessor: Preprocessor) -> bool:
    return hasattr(preprocessor, "num_special_tokens_to_add")


def one_preprocessor(preprocessor: Preprocessor, tokenizer: PreTrainedTokenizerBase | None) -> Preprocessor:
    """`preprocessor`, or the deprecated `tokenizer` argument with a warning.

    Raises:
        UsageError: both are tokenizers (a ValueError).
    """
    if tokenizer is None:
        return preprocessor
    if _is_tokenizer(preprocessor):
        raise UsageError("both a tokenizer and a preprocessor are given, should be one: give only the preprocessor")
    warnings.warn("the argument tokenizer is deprecated: use preprocessor", FutureWarning, stacklevel=3)
    return tokenizer
