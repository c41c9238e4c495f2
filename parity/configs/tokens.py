"""What a model's configuration says of its tokens: how many ids there are, and which one is padding."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def text_config(config: PretrainedConfig) -> PretrainedConfig:
    """The part of a configuration that is about texts."""
    return config.get_text_config() if hasattr(config, "get_text_config") else config


def vocabulary_of(config: PretrainedConfig, *, decoder: bool = False) -> int | None:
    """How many ids the model's table of tokens has; None where the configuration does not tell.

    Args:
        decoder: the table of the decoder, which Marian can have beside that of its encoder.
    """
    text = text_config(config)
    own = getattr(text, "decoder_vocab_size", None) if decoder else None
    return own or getattr(text, "vocab_size", None)


def token_types_of(config: PretrainedConfig) -> int | None:
    """How many token types the model's table has; None where the configuration tells of no table."""
    return getattr(text_config(config), "type_vocab_size", None) or None


def padding_token(config: PretrainedConfig, tokenizer: Any = None) -> int:
    """The id that padding is made of: the tokenizer's or the model's if the model's table has it, else 0.

    Old checkpoints have −1 for none, and some tokenizers an id behind the end of the table.
    """
    size = vocabulary_of(config)
    for owner in (tokenizer, text_config(config)):
        pad = getattr(owner, "pad_token_id", None)
        if isinstance(pad, int) and pad >= 0 and (size is None or pad < size):
            return pad
    return 0


def positions_of(config: PretrainedConfig) -> int | None:
    """How long the model's configuration says that a text may be, in tokens; None where it does not."""
    text = text_config(config)
    items = ("max_position_embeddings", "n_positions", "max_target_positions")
    longest = next((getattr(text, item) for item in items if getattr(text, item, None)), None)
    return longest if isinstance(longest, int) and longest > 0 else None


# What tokenizers leave out unless they are asked for it.
_OPTIONAL = ("attention_mask", "token_type_ids")


def requested_inputs(tokenizer: Any, declared: Collection[str]) -> list[str]:
    """Declared inputs that a tokenizer makes on request only, as that of ALBERT does with token types.

    Token types that are the same for both texts of a pair are none.
    """
    missing = [name for name in _OPTIONAL if name in declared and name not in tokenizer.model_input_names]
    return [name for name in missing if name != "token_type_ids" or _tells_texts_apart(tokenizer)]


def _tells_texts_apart(tokenizer: Any) -> bool:
    text = tokenizer.unk_token or "0"
    return len(set(tokenizer(text, text, return_token_type_ids=True).get("token_type_ids", ()))) > 1


def within_vocabulary(ids: Any, size: int | None) -> Any:
    """The ids, those behind the end of the table replaced by its last: a tokenizer may have tokens that it lacks.

    Args:
        ids: a tensor, an array, or lists of numbers.
    """
    if size is None:
        return ids
    if isinstance(ids, list):
        return [within_vocabulary(each, size) for each in ids]
    return min(ids, size - 1) if isinstance(ids, int) else ids.clip(max=size - 1)
