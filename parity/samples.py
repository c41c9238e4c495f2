"""Inputs for comparisons: sizes for every axis that a configuration names, token values, padding on either side."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from parity import axes
from parity.axes import TOKENS, Role, role_of
from parity.configs.tokens import padding_token, text_config, vocabulary_of
from parity.dtypes import DEFAULT_DTYPE, cast_floats, torch_dtype
from parity.errors import ExportError, UsageError
from parity.padding import pad_mixed
from parity.traceable import Layout

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from parity.configs import OnnxConfig
    from parity.configs.base import Preprocessor

# Seeds below this are those of the samples of a pool; larger ones those of samples with other values.
_SEEDS_OF_A_POOL = 1000
# A sound of more values than this is some thousand tokens that attend to each other.
LONG_SOUND = 1 << 17
# Inputs with drawn floats; perceiver's `inputs` are tokens or pixels, by their dtype.
_DRAWN = (Role.PIXELS, Role.SOUND, Role.STATES, Role.TOKENS)
# Boxes of words on a page: left, top, right, bottom, in thousandths of its width and height.
_PAGE = 1000
# The number of token types that tokenizers use for a pair of texts.
_TOKEN_TYPES = 2

# How rows are padded: not at all, some of them on one side, the whole last row, or each row in a way of its own.
PADDINGS = ("", "left", "right", "whole", "mixed")
# The factor of extreme values of floats, which reveals a clamp.
_LARGE = 16
# The number of rows by which the ways to pad a decoder's text lag behind those of the encoder's.
_TURN_OF_DECODER = 3


@dataclass(frozen=True)
class Sample:
    """One call of the model: nested arguments, the size of every named axis, how rows are padded, the kind of values.

    Args:
        extreme: whether its values are extreme; see `SampleSource.resize`.
    """

    sizes: Mapping[str, int]
    padding: str
    inputs: Mapping[str, Any] = field(repr=False)
    extreme: bool = False

    @property
    def tokens(self) -> int:
        """The tokens of the longest row, its past included; 0 if no input is a text."""
        ids = [self.inputs[name] for name in TOKENS if name in self.inputs]
        tokens = [tensor.shape[-1] for tensor in ids if not tensor.is_floating_point()]
        past = self.inputs.get("past_key_values")
        if past and tokens:
            tokens[-1] += past[0][0].shape[2]
        return max(tokens, default=0)

    def __str__(self) -> str:
        sizes = " × ".join(f"{name} {size}" for name, size in self.sizes.items() if not axes.is_sum(name))
        if self.padding == "whole":
            return f"{sizes}, last row fully masked"
        if self.padding == "mixed":
            return f"{sizes}, each row padded in a way of its own"
        return sizes + (f", padded {self.padding}" if self.padding else "")


class Sizes:
    """The sizes of named axes, read from tensors and imposed on tensors; `a + b` is as long as `a` and `b` together.

    Names of the old package contradict each other in places (one name, two sizes); then `consistent` is false.
    """

    def __init__(self, declaration: axes.Axes, flat: Mapping[str, torch.Tensor]) -> None:
        self._axes = {name: dict(names) for name, names in declaration.items() if name in flat}
        self.consistent = True
        self.traced: dict[str, int] = {}
        sums: list[tuple[str, int]] = []
        for name, names in self._axes.items():
            for axis, axis_name in names.items():
                size = flat[name].shape[axis]
                if axes.is_sum(axis_name):
                    sums.append((axis_name, size))
                elif self.traced.setdefault(axis_name, size) != size:
                    self.consistent = False
        for axis_name, size in sums:
            if axes.size_of(axis_name, self.traced) != size:
                self.consistent = False

    def resize(self, flat: Mapping[str, torch.Tensor], targets: Mapping[str, int]) -> dict[str, torch.Tensor]:
        """The tensors cut (their ends kept) or repeated along every axis, to the target sizes.

        Raises:
            KeyError: an axis is the sum of axes that the inputs do not all have.
        """
        sizes = {**self.traced, **targets}
        resized = {}
        for name, tensor in flat.items():
            for axis, axis_name in self._axes.get(name, {}).items():
                size = axes.size_of(axis_name, sizes)
                if size is None:
                    raise KeyError(f"{axis_name}: not all of its parts are axes of the inputs")
                tensor = _resize(tensor, axis, size)
            # Some models `view` their inputs, which a slice of a larger tensor does not allow.
            resized[name] = tensor.contiguous()
        return resized


def _resize(tensor: torch.Tensor, axis: int, size: int) -> torch.Tensor:
    """Cut to the last `size` entries, or extended by repeating the entries between the first and the last."""
    have = tensor.shape[axis]
    if size <= have:
        return tensor.narrow(axis, have - size, size)
    if have == 0:
        return tensor.new_zeros(*tensor.shape[:axis], size, *tensor.shape[axis + 1 :])
    middle = range(1, have - 1) if have > 2 else range(have)
    index = [0, *(middle[i % len(middle)] for i in range(size - 2)), have - 1][:size]
    return tensor.index_select(axis, torch.tensor(index))


class SampleSource:
    """Samples for one configuration and preprocessor.

    Args:
        onnx_config: an OnnxConfig.
        preprocessor: the argument of its `generate_dummy_inputs`.
        model_config: the model's configuration, for the sizes of its vocabularies.
        dtype: the type of the model's weights, and so of images, sounds and caches.
    """

    def __init__(
        self,
        onnx_config: OnnxConfig,
        preprocessor: Preprocessor | None,
        model_config: PretrainedConfig,
        dtype: str = DEFAULT_DTYPE,
    ) -> None:
        self.onnx_config = onnx_config
        self.preprocessor = preprocessor
        self.model_config = model_config
        self.dtype = dtype
        generated = self._generate()
        # An input that is generated but not declared is not in the file: the reference does not get it either.
        made = Layout.from_inputs(onnx_config, generated)
        self.layout = made.select(onnx_config.inputs)
        self.left_out = tuple(name for name in made.names if name not in onnx_config.inputs)
        self.dummy = self.layout.nest(self.layout.flatten(generated))
        self._sizes = Sizes(onnx_config.inputs, self.layout.flatten(self.dummy))
        text = text_config(model_config)
        self._vocabulary = vocabulary_of(model_config)
        self._decoder_vocabulary = vocabulary_of(model_config, decoder=True)
        # A model without a table of token types (xlm) looks them up in the table of its tokens.
        self._token_types = getattr(text, "type_vocab_size", None) or _TOKEN_TYPES
        self._page = min(_PAGE, (getattr(text, "max_2d_position_embeddings", None) or _PAGE + 1) - 1)
        tokenizer = getattr(preprocessor, "tokenizer", preprocessor)
        unknown = getattr(tokenizer, "unk_token_id", None)
        self._special = {i for i in getattr(tokenizer, "all_special_ids", None) or [] if i != unknown}
        self._pad = padding_token(model_config, tokenizer)

    @property
    def axes(self) -> dict[str, int]:
        """The size of every named axis in the dummy inputs, those of the export."""
        return dict(self._sizes.traced)

    @property
    def axis_sizes(self) -> Mapping[str, range]:
        """Axis → valid sizes, if these are not all sizes from 1 up."""
        return self.onnx_config.axis_sizes

    @property
    def resizable(self) -> bool:
        """Whether the axis names agree with the dummy inputs, so that these can be resized."""
        return self._sizes.consistent and bool(self._sizes.traced)

    @property
    def masked(self) -> bool:
        """Whether rows can be padded: a mask is among the inputs."""
        return any(mask in self.layout.names for mask in axes.PADDING_MASKS)

    @property
    def special(self) -> frozenset[int]:
        """The ids of special tokens, which stay where the tokenizer put them."""
        return frozenset(self._special)

    @property
    def token_types(self) -> int:
        """The number of token types that the inputs can mix; 0 if they are no input."""
        return self._token_types if any(role_of(name) is Role.TOKEN_TYPES for name in self.layout.names) else 0

    @property
    def vocabulary(self) -> int:
        """The number of ids that the tokens can have, by the larger table if there are two; 0 if no input is a text."""
        return max((self._vocabulary_of(name) for name in TOKENS if name in self.layout.names), default=0)

    def logits_of_row(self, sizes: Mapping[str, int]) -> int:
        """The most logits over the vocabulary for a row of these sizes; 0 for a task without such logits."""
        if not self.onnx_config.task.endswith("-lm"):
            return 0
        named = [sizes[name] for name in axes.TEXTS if name in sizes]
        fixed = [self.dummy[name].shape[-1] for name in TOKENS if name in self.layout.names]
        return self.vocabulary * max(named or fixed, default=0)

    @property
    def sound_of_row(self) -> int:
        """The number of values of a row's sound in the dummy inputs; 0 without sounds."""
        flat = self.layout.flatten(self.dummy)
        return max((math.prod(flat[name].shape[1:]) for name in flat if role_of(name) is Role.SOUND), default=0)

    def _generate(self, **sizes: Any) -> dict[str, Any]:
        from transformers.utils import TensorType

        if self.preprocessor is None:
            raise ExportError(
                "the checkpoint has no tokenizer, image processor or feature extractor to make inputs with; save the"
                " model's own one beside its weights with save_pretrained"
            )
        inputs = self.onnx_config.generate_dummy_inputs(self.preprocessor, framework=TensorType.PYTORCH, **sizes)
        return dict(inputs) if self.dtype == DEFAULT_DTYPE else cast_floats(dict(inputs), torch_dtype(self.dtype))

    def generate(
        self,
        *,
        batch_size: int = -1,
        seq_length: int = -1,
        padding: str = "",
        seed: int | None = None,
        extreme: bool = False,
    ) -> Sample:
        """The result of `generate_dummy_inputs` at these sizes.

        Args:
            batch_size, seq_length: rows, and tokens in a row; -1 for the defaults.
            padding: one of `PADDINGS`.
            seed: of the drawn values; None keeps the dummy values.
            extreme: see `resize`.
        """
        sizes = {"batch_size": batch_size, "seq_length": seq_length}
        options = {name: size for name, size in sizes.items() if size > 0}
        nested = self._generate(**options) if options else self.dummy
        flat = Layout.from_inputs(self.onnx_config, nested).flatten(nested)
        varied = self._varied(flat, seed, extreme=extreme)
        return self._sample(varied, padding, Sizes(self.onnx_config.inputs, flat).traced, extreme=extreme)

    def resize(
        self,
        sizes: Mapping[str, int],
        *,
        padding: str = "",
        seed: int | None = 0,
        whole_vocabulary: bool = False,
        extreme: bool = False,
    ) -> Sample:
        """The dummy inputs cut or repeated to any sizes of the named axes, with varied values.

        Args:
            sizes: the sizes to change, by axis.
            padding: one of `PADDINGS`.
            seed: of the drawn values; None keeps the dummy values.
            whole_vocabulary: whether tokens run through all ids, from `seed` on, instead of being drawn.
            extreme: whether to draw extreme values: ids from the whole vocabulary, the first and the last included,
                the first box is the page, and floats of every second row, keys apart, are much larger.
        """
        unknown = sorted(set(sizes) - set(self._sizes.traced))
        if unknown:
            raise KeyError(f"axes: {', '.join(unknown)} asked for, the inputs name {', '.join(self._sizes.traced)}")
        flat = self._sizes.resize(self.layout.flatten(self.dummy), sizes)
        varied = self._varied(flat, seed, whole_vocabulary=whole_vocabulary, extreme=extreme)
        return self._sample(varied, padding, {**self._sizes.traced, **sizes}, extreme=extreme)

    def _sample(
        self, flat: dict[str, torch.Tensor], padding: str, sizes: Mapping[str, int], *, extreme: bool
    ) -> Sample:
        if padding not in PADDINGS:
            raise UsageError(f"padding: got {padding!r}, should be one of {', '.join(map(repr, PADDINGS))}")
        if padding:
            self._pad_rows(flat, padding)
        return Sample(sizes, padding, self.layout.nest(flat), extreme)

    def _varied(
        self, flat: Mapping[str, torch.Tensor], seed: int | None, *, whole_vocabulary: bool = False, extreme: bool
    ) -> dict[str, torch.Tensor]:
        """The tensors with drawn values, or unchanged without a seed."""
        tensors = dict(flat)
        if seed is not None:
            generator = torch.Generator().manual_seed(seed)
            self._vary(tensors, generator, seed if whole_vocabulary else None, extreme=extreme)
        return tensors

    def _vary(
        self,
        flat: dict[str, torch.Tensor],
        generator: torch.Generator,
        first: int | None = None,
        *,
        extreme: bool = False,
    ) -> None:
        """Draw values; with `first` the tokens run through all ids in order, from that one on."""
        for name, tensor in flat.items():
            role = role_of(name)
            if role is Role.SOUND and math.prod(tensor.shape[1:]) > LONG_SOUND:
                flat[name] = _alternate(tensor, generator.initial_seed(), extreme=extreme)
            elif (role in _DRAWN and tensor.is_floating_point()) or role is Role.CACHE:
                flat[name] = torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
                if extreme and name.endswith(".key"):
                    # One channel of one token: with larger keys one token of a past would get all the attention.
                    end = flat[name][1::2, ..., -1:, :1]
                    end.copy_(end.sign() * _LARGE)
                elif extreme:
                    flat[name][1::2] *= _LARGE
            elif role is Role.TOKENS and (vocabulary := self._vocabulary_of(name)):
                keep = torch.zeros_like(tensor, dtype=torch.bool)
                for special in self._special:
                    keep |= tensor == special
                if bool(keep.all()) and not self._ends_counted(name, flat):
                    # Too short for anything else: if they were kept, every input of a pool would be the same.
                    keep = torch.zeros_like(keep)
                if extreme:
                    # Padding ids are used only if they are masked: elsewhere they shorten texts for some models.
                    left_out = {*tensor[keep].tolist(), *([self._pad] if self.masked else [])}
                    ids = _spread(_all_but(left_out, vocabulary), tensor.shape, generator)
                elif first is None:
                    allowed = _all_but(self._special, vocabulary)
                    ids = allowed[torch.randint(len(allowed), tensor.shape, generator=generator)]
                else:
                    # Special tokens stay where the tokenizer put them: some heads count them.
                    run = _all_but(tensor[keep].tolist(), vocabulary)
                    ids = run[((~keep).flatten().cumsum(0) - 1 + first) % len(run)].view(tensor.shape)
                flat[name] = torch.where(keep, tensor, ids.to(tensor.dtype))
            elif role is Role.TOKEN_TYPES:
                flat[name] = torch.randint(self._token_types, tensor.shape, generator=generator, dtype=tensor.dtype)
            elif name == axes.GLOBAL_MASK:
                flat[name] = torch.randint(2, tensor.shape, generator=generator, dtype=tensor.dtype)
            elif role is Role.BOXES:
                shape = (2, *tensor.shape[:-1], 2)
                corners = torch.randint(self._page + 1, shape, generator=generator, dtype=tensor.dtype)
                flat[name] = torch.cat(list(corners.sort(0).values), -1)
                if extreme:
                    flat[name][..., 0, :] = torch.tensor([0, 0, self._page, self._page], dtype=tensor.dtype)

    def _vocabulary_of(self, name: str) -> int:
        """The number of ids that the tokens of this input can have; 0 if unknown."""
        return (self._decoder_vocabulary if name.startswith("decoder_") else self._vocabulary) or 0

    def _ends_counted(self, name: str, flat: Mapping[str, torch.Tensor]) -> bool:
        """Whether the head searches for the end token: an encoder-decoder classifies its first text there."""
        classifies = getattr(self.onnx_config, "task", None) == "sequence-classification"
        return name == "input_ids" and "decoder_input_ids" in flat and classifies

    def _pad_rows(self, flat: dict[str, torch.Tensor], padding: str) -> None:
        """Pad rows: the first stays whole, the last loses about half of its tokens, those between them a few.

        `whole` instead masks all of the last row, its past too. An image is padded as processors do it,
        below and to the right.
        """
        if axes.PIXEL_MASK in flat:
            flat["pixel_values"], flat[axes.PIXEL_MASK] = _pad_images(
                flat["pixel_values"], flat[axes.PIXEL_MASK], padding == "whole"
            )
        if axes.STATES_MASK in flat:
            flat[axes.STATES_MASK] = _mask_states(flat[axes.STATES_MASK], padding)
        for tokens in (name for name in TOKENS if name in flat):
            mask = axes.MASK_OF[tokens]
            if mask not in flat:
                continue
            ids, ones = flat[tokens].clone(), flat[mask].clone()
            rows, length = ids.flatten(0, -2), ids.shape[-1]
            masks = ones.flatten(0, -2)
            if padding == "whole":
                masks[-1] = 0
                flat[mask] = masks.view(ones.shape)
                continue
            if padding == "mixed":
                # A row that is masked in the encoder is not in the decoder.
                turn = _TURN_OF_DECODER if mask.startswith("decoder_") else 0
                flat[tokens], flat[mask] = pad_mixed(ids, ones, self._pad, turn)
                continue
            for index in range(len(rows)):
                count = length // 2 if index == len(rows) - 1 else min(index, length - 1)
                if count == 0:
                    continue
                if masks.shape[-1] != length:
                    # With a past the padding is in front of the past, whichever side was requested.
                    masks[index, :count] = 0
                    continue
                blank, kept = rows.new_full((count,), self._pad), rows[index, count:].clone()
                rows[index] = torch.cat([blank, kept] if padding == "left" else [kept, blank])
                masks[index, slice(None, count) if padding == "left" else slice(length - count, None)] = 0
            flat[tokens], flat[mask] = rows.view(ids.shape), masks.view(ones.shape)


def _alternate(tensor: torch.Tensor, seed: int, *, extreme: bool) -> torch.Tensor:
    """Every second row replaced by a row that is the same for all seeds; if extreme, the others by a much larger one.

    So all samples together have only a few different sounds, which an encoder has to run once each.
    """
    row = torch.randn(tensor.shape[1:], generator=torch.Generator().manual_seed(0), dtype=tensor.dtype)
    drawn = (torch.arange(len(tensor)) + seed // _SEEDS_OF_A_POOL) % 2 == 0
    changed = row * _LARGE * torch.ones_like(tensor) if extreme else tensor.clone()
    changed[drawn] = row
    return changed


def _spread(allowed: torch.Tensor, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    """Ids in random order, without repeats until all are used; the first and the last are always among them."""
    count, inner = math.prod(shape), allowed[1:-1]
    ids = torch.cat([allowed[[0, -1]], inner[torch.randperm(len(inner), generator=generator)]])
    ids = ids.repeat(-(-count // len(ids)))[:count]
    return ids[torch.randperm(count, generator=generator)].view(shape)


def _mask_states(mask: torch.Tensor, padding: str) -> torch.Tensor:
    """The mask with the last text of the encoder shorter by half, or fully masked; if mixed, rows take turns."""
    mask, half = mask.clone(), mask.shape[-1] // 2
    places = {"left": slice(None, half), "right": slice(mask.shape[-1] - half, None), "whole": slice(None)}
    if padding in places:
        mask[-1, places[padding]] = 0
        return mask
    for row, place in zip(mask, itertools.cycle(places.values()), strict=False):
        row[place] = 0
    return mask


def _all_but(ids: Iterable[int], vocabulary: int) -> torch.Tensor:
    """All ids of a vocabulary but these, in order."""
    others = torch.ones(vocabulary, dtype=torch.bool)
    others[[i for i in ids if 0 <= i < vocabulary]] = False
    return others.nonzero()[:, 0]


def _pad_images(pixels: torch.Tensor, mask: torch.Tensor, whole: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The last image of the batch smaller by a third, or fully masked."""
    pixels, mask = pixels.clone(), mask.clone()
    height, width = (0, 0) if whole else (size - size // 3 for size in mask.shape[-2:])
    mask[-1, height:] = 0
    mask[-1, :, width:] = 0
    if not whole:
        pixels[-1] *= mask[-1].to(pixels.dtype)
    return pixels, mask
