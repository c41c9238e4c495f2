"""Checks of a checkpoint's name and of its files on disk: their faults, before or after loading."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from parity.errors import CheckpointError, UsageError
from parity.paths import kind_of, short
from parity.schema import SchemaError, parse_json

# Items of a configuration that are sizes, from 1 to `_LARGEST` in every model.
_SIZES = frozenset(
    (
        *("vocab_size", "hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embed_dim", "intermediate_size"),
        *("d_ff", "d_kv", "n_positions", "num_attention_heads", "num_heads", "n_head", "n_heads"),
        *("encoder_attention_heads", "decoder_attention_heads", "max_position_embeddings", "image_size", "patch_size"),
    )
)
_LARGEST = 100_000_000
# Bytes of the largest JSON file that is parsed to explain a failure.
_LARGEST_JSON = 1 << 28
_FIELD = re.compile(r"Field '(?P<field>[\w.]+)' expected (?P<type>.+?), got \S+ \(value: (?P<value>.*?)\)", re.DOTALL)
_TYPES = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}


def directory_of(source: str) -> Path:
    """The path of a checkpoint with this name, which need not exist.

    Raises:
        UsageError: the name can be neither a path nor a Hub id.
    """
    if not isinstance(source, str):
        raise UsageError(f"--model: got {type(source).__name__}, should be the directory of a checkpoint or a Hub id")
    name = short(Path(source)) if "\0" not in source else ascii(source[:100])
    try:
        source.encode()
        path = Path(source).expanduser()
        path.exists()
        os.fspath(path).encode()
        if "\0" in source:
            raise ValueError
    except UnicodeError:
        why = "its name is not valid UTF-8; rename it"
    except RuntimeError:
        why = "there is no such user; give the directory of a checkpoint or a Hub id"
    except (OSError, ValueError):
        why = "no file can have that name; give the directory of a checkpoint or a Hub id"
    else:
        return path
    raise UsageError(f"--model {name}: {why}")


def require_hub_id(source: str) -> None:
    """Refuse a name that no repository of the Hub can have.

    Raises:
        UsageError
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(source)
    except HFValidationError:
        raise UsageError(
            f"--model {short(Path(source))}: is neither a directory on this machine nor a Hub id, which has letters,"
            " digits, '-', '_' and '.', no '--' or '..', and at most 96 characters"
        ) from None


def require_configuration(directory: Path) -> None:
    """Refuse a config.json that is not valid, or has a size that no model can have.

    Raises:
        CheckpointError
    """
    path = directory / "config.json"
    try:
        kind = kind_of(os.stat(path).st_mode)
    except OSError:
        kind = "a link that leads nowhere"
    if kind:
        raise CheckpointError(f"{directory}: config.json is {kind}, should be a file; copy or download it again")
    try:
        configuration = parse_json(path.read_bytes(), constants=True)
    except SchemaError as error:
        raise CheckpointError(f"{directory}: config.json {_in_words(error)}; copy or download it again") from None
    if not isinstance(configuration, dict):
        words = {bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list"}
        name = words.get(type(configuration), "null")
        raise CheckpointError(
            f"{directory}: config.json is {name}, should be an object such as save_pretrained writes; copy or download"
            " it again"
        )
    for item, value in _sizes(configuration):
        if not 1 <= value <= _LARGEST:
            raise CheckpointError(
                f"{directory}: config.json: {item} is {str(value)[:40]}, should be a whole number from 1 to {_LARGEST};"
                " correct it, or save the checkpoint again with save_pretrained"
            )


def _in_words(error: SchemaError) -> str:
    return str(error).replace("no valid JSON", "not valid JSON")


def _sizes(configuration: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The sizes in a configuration and in those inside it; transformers itself refuses values that are no numbers."""
    stack = [configuration]
    while stack:
        for name, value in stack.pop().items():
            if isinstance(value, dict):
                stack.append(value)
            elif name in _SIZES and isinstance(value, (int, float)) and not isinstance(value, bool):
                yield name, value


def broken_json(directory: Path) -> str:
    """The first broken JSON file of a directory and its fault; empty if there is none."""
    for path in sorted(directory.glob("*.json")) if directory.is_dir() else ():
        try:
            kind = kind_of(os.stat(path).st_mode)
            if kind:
                return f"{path.name} is {kind}, should be a file; copy or download it again"
            if path.stat().st_size <= _LARGEST_JSON:
                parse_json(path.read_bytes(), constants=True)
        except OSError:
            return f"{path.name} cannot be read; copy or download it again"
        except SchemaError as error:
            return f"{path.name} {_in_words(error)}; copy or download it again"
    return ""


def wrong_item(text: str) -> str:
    """An error of a validation class of transformers about an item of config.json, in words; empty for others."""
    match = _FIELD.search(text)
    if match is None:
        return ""
    should = _TYPES.get(match["type"], match["type"])
    return (
        f"config.json: {match['field']} is {match['value'][:60]}, should be {should}; correct it, or save the"
        " checkpoint again with save_pretrained"
    )
