"""Facts about tokens in a model's configuration: the number of ids, which id is padding, how long a text may be."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def text_config(config: PretrainedConfig) -> PretrainedConfig:
    """The part of a configuration for texts."""
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def vocabulary_of(config: PretrainedConfig, *, decoder: bool = False) -> int | None:
    """The number of ids in the model's table of tokens; None if the configuration does not say.

    Args:
        decoder: take the table of the decoder, which Marian can have in addition to that of its encoder.
    """
    text = text_config(config)
    own = getattr(text, "decoder_vocab_size", None) if decoder else None
    return own or getattr(text, "vocab_size", None)


def token_types_of(config: PretrainedConfig) -> int | None:
    """The number of token types in the model's table; None if the configuration has no table."""
    return getattr(text_config(config), "type_vocab_size", None) or None


def padding_token(config: PretrainedConfig, tokenizer: Any = None) -> int:
    """The id for padding: the tokenizer's or the model's if the model's table has it, else 0.

    Old checkpoints have −1 for none, and some tokenizers an id beyond the end of the table.
    """
    size = vocabulary_of(config)
    for owner in (tokenizer, text_config(config)):
        pad = getattr(owner, "pad_token_id", None)
        if isinstance(pad, int) and pad >= 0 and (size is None or pad < size):
            return pad
    return 0


def positions_of(config: PretrainedConfig) -> int | None:
    """The longest text by the model's configuration, in tokens; None if it does not say."""
    text = text_config(config)
    items = ("max_position_embeddings", "n_positions", "max_target_positions")
    longest = next((getattr(text, item) for item in items if getattr(text, item, None)), None)
    return longest if isinstance(longest, int) and longest > 0 else None


# The inputs that tokenizers make only on request.
_OPTIONAL = ("attention_mask", "token_type_ids")


def requested_inputs(tokenizer: Any, declared: Collection[str]) -> list[str]:
    """Declared inputs that a tokenizer makes only on request, such as token types with that of ALBERT.

    Token types that are the same for both texts of a pair are left out.
    """
    missing = [name for name in _OPTIONAL if name in declared and name not in tokenizer.model_input_names]
    return [name for name in missing if name != "token_type_ids" or _tells_texts_apart(tokenizer)]


def _tells_texts_apart(tokenizer: Any) -> bool:
    text = tokenizer.unk_token or "0"
    return len(set(tokenizer(text, text, return_token_type_ids=True).get("token_type_ids", ()))) > 1


def within_vocabulary(ids: Any, size: int | None) -> Any:
    """The ids, those beyond the end of the table replaced by its last: a tokenizer may have tokens that it lacks.

    Args:
        ids: a tensor, an array, or lists of numbers.
    """
    if size is None:
        return ids
    if isinstance(ids, list):
        return [within_vocabulary(each, size) for each in ids]
    return min(ids, size - 1) if isinstance(ids, int) else ids.clip(max=size - 1)
