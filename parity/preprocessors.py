"""Preprocessors, which make a model's inputs: the checkpoint's own, or generators of token ids."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parity import loading, schema
from parity.configs.images import channels_of, colours_of
from parity.configs.tokens import padding_token, requested_inputs, text_config, vocabulary_of
from parity.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from transformers import FeatureExtractionMixin, PretrainedConfig, PreTrainedTokenizerBase
    from transformers.image_processing_utils import ImageProcessingMixin

    from parity.configs.base import Preprocessor

# Kinds of models, as declarations name them, that take only a text, and those that take more than a text.
TEXT_KINDS = ("encoder", "decoder", "encoder-decoder")
JOINED_KINDS = ("multimodal", "speech")


class JoinedPreprocessor:
    """A processor for two kinds of inputs: transformers has a class for each pair, all with these attributes."""

    def __init__(
        self, first: ImageProcessingMixin | FeatureExtractionMixin, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self.tokenizer = tokenizer
        kind = "image_processor" if "pixel_values" in first.model_input_names else "feature_extractor"
        setattr(self, kind, first)
        self._parts = (first, tokenizer)

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write both into one directory."""
        for part in self._parts:
            part.save_pretrained(directory)


class DrawnTokens:
    """Replaces the tokenizer of a text model without one: a text has an id for each character, and an end.

    The ids are the lowest that are not padding; a caller that varies them draws others.
    """

    unk_token = "0"
    unk_token_id = None
    model_input_names = ("input_ids", "token_type_ids", "attention_mask")

    def __init__(self, config: PretrainedConfig) -> None:
        size = vocabulary_of(config) or 2
        self.pad_token_id = padding_token(config)
        end = getattr(text_config(config), "eos_token_id", None)
        # Some heads search the ids for it.
        self.all_special_ids = [end] if isinstance(end, int) and 0 <= end < size else []
        self._words = [word for word in range(size) if word not in (self.pad_token_id, end)] or [0]

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """How many tokens follow a text."""
        return len(self.all_special_ids)

    def __call__(
        self, text: Sequence[str] | None = None, text_pair: Sequence[str] | None = None, **options: Any
    ) -> Any:
        """Ids, mask and token types of texts, as a tokenizer makes them."""
        from transformers import BatchEncoding

        if text is None or not all(isinstance(each, str) for each in text):
            raise CheckpointError("the checkpoint has no image processor; save the model's own one there")
        pairs = text_pair or [""] * len(text)
        types = [
            [0] * len(first) + [1] * len(second) + [0] * len(self.all_special_ids)
            for first, second in zip(text, pairs, strict=True)
        ]
        ids = [
            [
                *itertools.islice(itertools.cycle(self._words), len(row) - len(self.all_special_ids)),
                *self.all_special_ids,
            ]
            for row in types
        ]
        data = {"input_ids": ids, "token_type_ids": types, "attention_mask": [[1] * len(row) for row in types]}
        return BatchEncoding(data, tensor_type=options.get("return_tensors"))

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write nothing: there are no files."""


def open_preprocessor(
    source: str, config: PretrainedConfig, kind: str = "auto", *, tokenizer: str | None = None, cache_dir: str | None
) -> Preprocessor:
    """The preprocessor for the inputs of a checkpoint's model.

    Args:
        source: directory or Hub id of its files.
        config: the model's configuration.
        kind: see `loading.load_preprocessor`; `auto` takes the kind that the architecture needs.
        tokenizer: directory or Hub id of a tokenizer that replaces the checkpoint's own.
        cache_dir: directory for checkpoints from the Hub.

    Raises:
        UsageError, CheckpointError: it cannot be loaded, has fewer tokens than its files, or lacks a part that the
            model needs.
    """
    needs = _kind_of(config.model_type)
    if tokenizer is not None:
        if needs not in (*TEXT_KINDS, *JOINED_KINDS):
            raise UsageError(f"--tokenizer {tokenizer}: {config.model_type} takes no text; leave the option out")
        own = _tokenizer_from(tokenizer, config, cache_dir)
        if needs in TEXT_KINDS:
            return own
        return JoinedPreprocessor(loading.load_preprocessor(source, "image_processor", cache_dir), own)
    both = loading.kinds_of_preprocessor(source, cache_dir) == ["tokenizer", "image_processor"]
    if both and (kind == "processor" or (kind == "auto" and needs in JOINED_KINDS)):
        return _joined(source, config, cache_dir)
    if both and kind == "auto":
        # The other part belongs to another model of the same directory.
        kind = "image_processor" if needs == "vision" else "tokenizer"
    if kind not in ("auto", "processor") and needs in JOINED_KINDS and getattr(config, "visual_embed", True):
        raise UsageError(
            f"--preprocessor {kind}: {config.model_type} takes a text and an image or a sound, which needs a tokenizer"
            " and an image processor or feature extractor; leave the option out, so that both are used"
        )
    preprocessor = loading.load_preprocessor(source, kind, cache_dir, config)
    if preprocessor is None and needs in TEXT_KINDS:
        return DrawnTokens(config)
    if preprocessor is None:
        raise CheckpointError(
            f"{source}: has no tokenizer, image processor or feature extractor to make inputs with; save the model's"
            " own one there with save_pretrained"
        )
    if needs in JOINED_KINDS:
        _require_parts(preprocessor, source, config)
    _require_words(preprocessor, source, config, cache_dir)
    return preprocessor


def tokenizer_of(preprocessor: Preprocessor | None) -> PreTrainedTokenizerBase | None:
    """The tokenizer, or that of a processor; None if there is none, or it has no files."""
    tokenizer = getattr(preprocessor, "tokenizer", preprocessor)
    return tokenizer if hasattr(tokenizer, "all_special_ids") and not isinstance(tokenizer, DrawnTokens) else None


def _kind_of(model_type: str, task: str = "") -> str:
    from parity.registry import architecture

    try:
        return architecture(model_type).kind_of(task)
    except KeyError:
        return ""


def _joined(source: str, config: PretrainedConfig, cache_dir: str | None) -> Preprocessor:
    """Tokenizer and image processor, or feature extractor, of a checkpoint without a processor that joins them."""
    processor = loading.joint_processor(source, cache_dir)
    if processor is None:
        text = loading.load_preprocessor(source, "tokenizer", cache_dir)
        processor = JoinedPreprocessor(loading.load_preprocessor(source, "image_processor", cache_dir), text)
    _require_words(processor, source, config, cache_dir)
    return processor


def _tokenizer_from(tokenizer: str, config: PretrainedConfig, cache_dir: str | None) -> PreTrainedTokenizerBase:
    if Path(tokenizer).expanduser().exists() and not Path(tokenizer).expanduser().is_dir():
        raise UsageError(
            f"--tokenizer {tokenizer}: is a file, should be the directory that holds the tokenizer's files"
        )
    if not tokenizer or not (Path(tokenizer).expanduser().is_dir() or loading.is_hub_id(tokenizer)):
        raise UsageError(f"--tokenizer {tokenizer}: no such directory; give the directory of a tokenizer, or a Hub id")
    own = loading.load_preprocessor(tokenizer, "tokenizer", cache_dir, config)
    _require_words(own, tokenizer, config, cache_dir)
    return own


def _require_parts(preprocessor: Preprocessor, source: str, config: PretrainedConfig) -> None:
    """Refuse a preprocessor for only one of the two kinds of inputs that the model takes."""
    has_text = getattr(preprocessor, "tokenizer", None) is not None
    if has_text or not getattr(config, "visual_embed", True):
        return
    is_text = hasattr(preprocessor, "all_special_ids")
    missing = "image processor or feature extractor" if is_text else "tokenizer"
    raise CheckpointError(
        f"{source}: has no {missing}, which {config.model_type} needs too; save the model's own one there with"
        f" save_pretrained{'' if is_text else '; or name another with --tokenizer'}"
    )


def _require_words(preprocessor: Preprocessor, source: str, config: PretrainedConfig, cache_dir: str | None) -> None:
    """Refuse a tokenizer that transformers rebuilt with fewer tokens than its files list and the model has."""
    tokenizer = tokenizer_of(preprocessor)
    if tokenizer is None:
        return
    known = {token.strip() for token in tokenizer.get_vocab()}
    size = vocabulary_of(config)
    for path in _vocabularies(source, cache_dir):
        listed = _words_of(path)
        if len(known & listed) < min(len(listed), size or len(listed)):
            raise CheckpointError(
                f"{source}: its tokenizer, as {type(tokenizer).__name__} of the installed transformers, knows"
                f" {len(known & listed)} of the {len(listed)} tokens of {path.name}: the others would be unknown words;"
                " name the class that it was saved with as tokenizer_class in tokenizer_config.json, or take another"
                " with --tokenizer"
            )


def _vocabularies(source: str, cache_dir: str | None) -> list[Path]:
    paths = [loading.has_file(source, name, cache_dir) for name in ("vocab.txt", "vocab.json", "tokenizer.json")]
    return [path for path in paths if path is not None]


def require_texts(preprocessor: Preprocessor, source: str, model_type: str, task: str) -> None:
    """Refuse to draw token ids for a task of a text model that is about images (perceiver's, ImageGPT's)."""
    if isinstance(preprocessor, DrawnTokens) and (_kind_of(model_type, task) == "vision" or model_type == "imagegpt"):
        raise CheckpointError(
            f"{source}: has no image processor, which {task} needs; save the model's own one there with save_pretrained"
        )


def _words_of(path: Path) -> set[str]:
    """The tokens in a vocabulary's file; empty if it has another form."""
    try:
        text = schema.read_text(path)
        if path.suffix == ".txt":
            return {line.strip() for line in text.split("\n")} - {""}
        words = schema.parse_json(text, constants=True)
        words = words.get("model", {}).get("vocab", {}) if path.name == "tokenizer.json" else words
    except (schema.SchemaError, AttributeError):
        return set()
    if isinstance(words, dict) and all(isinstance(index, int) for index in words.values()):
        return {word.strip() for word in words} - {""}
    # A list of pieces with their scores.
    return {piece[0].strip() for piece in words if isinstance(piece, list)} - {""} if isinstance(words, list) else set()


def remarks(
    preprocessor: Preprocessor | None, config: PretrainedConfig, declared: Collection[str], left_out: Collection[str]
) -> tuple[list[str], list[str]]:
    """Remarks on the inputs for the user: lines for the log, and warnings.

    Args:
        preprocessor: of the checkpoint.
        config: the model's configuration.
        declared: the inputs that the model's file can have.
        left_out: inputs that the preprocessor makes and the file does not take.
    """
    log, warnings = [], []
    tokenizer = tokenizer_of(preprocessor)
    if isinstance(preprocessor, DrawnTokens):
        log.append(
            "No tokenizer: exported and validated with drawn token ids; take one from elsewhere with --tokenizer"
        )
    if left_out:
        log.append(f"Left out, because {config.model_type} does not take them: {', '.join(left_out)}")
    if tokenizer is not None:
        made = {*tokenizer.model_input_names, *requested_inputs(tokenizer, declared)}
        if "token_type_ids" in declared and "token_type_ids" not in made:
            warnings.append(
                f"the tokenizer ({type(tokenizer).__name__}) gives both texts of a pair the same token types: the file"
                " has no token_type_ids, and takes a pair for one text"
            )
    colours, channels = colours_of(getattr(preprocessor, "image_processor", preprocessor)), channels_of(config)
    if colours and channels and colours != channels:
        warnings.append(
            f"the image processor normalises {colours} channels, the model takes {channels}: the file takes"
            f" {channels}, so that what this processor makes does not fit it; correct image_mean and image_std"
        )
    return log, warnings
