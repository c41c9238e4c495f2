"""What goes beside a model file: the configuration and the preprocessor's files, so that its directory works alone."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parity import loading
from parity.axes import Role, role_of
from parity.checkpoint import Checkpoint
from parity.configs.tokens import requested_inputs
from parity.errors import CheckpointError
from parity.ownership import require_own
from parity.preprocessors import tokenizer_of
from parity.publication import Publication
from parity.schema import SchemaError, anything, entries, prose, read_json

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

TOKENIZER_CONFIG = "tokenizer_config.json"
# Those that any tokenizer may have; its class names its vocabulary's.
_TOKENIZER_FILES = (
    TOKENIZER_CONFIG,
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    *loading.SENTENCE_PIECES,
    "target.spm",
    "target_vocab.json",
    "bpe.codes",
    "normalizer.json",
)
_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json", "chat_template.jinja", "chat_template.json")


@dataclass(frozen=True)
class Companions:
    """The configuration and the preprocessor's files, with which the directory of a model file can be used alone.

    Args:
        stage: where they are until the model file is there; None where the checkpoint's own directory has them.
        directory: where they go.
    """

    stage: Path | None
    directory: Path

    @classmethod
    def write(
        cls,
        checkpoint: Checkpoint,
        stage: Path,
        models: Sequence[Path],
        *,
        instead: Sequence[Path] = (),
        overwrite: bool = False,
        say: Callable[[str], None] = print,
    ) -> Companions:
        """Write them into `stage`.

        Args:
            models: the model files that will stand beside them.
            instead: those that are kept where they fail.
            overwrite: replace files that are not ours.

        Raises:
            UsageError: one of `models`, or of them, would replace a file that is not ours.
        """
        own = models[0].parent.resolve() == Path(checkpoint.source).expanduser().resolve()
        companions = None if own else _save_companions(checkpoint, stage)
        require_own(models, companions, checkpoint, instead=instead, overwrite=overwrite, say=say)
        return cls(companions, models[0].parent)

    def add_to(self, publication: Publication) -> None:
        """Have them moved to their place, together with the model files."""
        for path in sorted(self.stage.iterdir()) if self.stage else ():
            publication.add(path, path.name)


def _save_companions(checkpoint: Checkpoint, stage: Path) -> Path:
    companions = stage / "companions"
    companions.mkdir()
    _without_place(checkpoint.config).save_pretrained(companions)
    for source, name in _own_files(checkpoint):
        path = loading.has_file(source, name, checkpoint.cache_dir)
        if path:
            shutil.copyfile(path, companions / name)
    tokenizer = tokenizer_of(checkpoint.preprocessor)
    if tokenizer is not None:
        _name_inputs(tokenizer, checkpoint, companions / TOKENIZER_CONFIG)
    return companions


def _own_files(checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    """Where each file may be that the model's own preprocessor is read from, and its name."""
    preprocessor = checkpoint.preprocessor
    tokenizer = tokenizer_of(preprocessor)
    if tokenizer is not None:
        names = getattr(type(tokenizer), "vocab_files_names", {}).values()
        yield from ((checkpoint.tokenizer_source, name) for name in dict.fromkeys((*_TOKENIZER_FILES, *names)))
    if tokenizer is not preprocessor:
        yield from ((checkpoint.preprocessor_source, name) for name in _PROCESSOR_FILES)
    yield checkpoint.base, "generation_config.json"


def _name_inputs(tokenizer: PreTrainedTokenizerBase, checkpoint: Checkpoint, path: Path) -> None:
    """Let the tokenizer make by itself what the file takes, if it would make something else; all else stays as it is.

    A tokenizer of another directory also needs the name of its class, which the model's configuration does not tell.
    """
    made = list(tokenizer.model_input_names)
    taken = [name for name in made if name in checkpoint.input_names]
    taken += requested_inputs(tokenizer, checkpoint.input_names)
    changes: dict[str, Any] = {}
    # What reads a text under another name (a decoder, Perceiver) is no reason to change anything.
    if taken != made and any(role_of(name) is Role.TOKENS for name in taken):
        changes["model_input_names"] = taken
    try:
        own = read_json(path, entries(prose(), anything), constants=True) if path.is_file() else {}
    except SchemaError as error:
        raise CheckpointError(f"{error}; copy or download the tokenizer's files again") from None
    if checkpoint.tokenizer_source != checkpoint.base and "tokenizer_class" not in own:
        changes["tokenizer_class"] = type(tokenizer).__name__
    if changes:
        content = json.dumps({**own, **changes}, indent=2, ensure_ascii=False)
        path.write_text(f"{content}\n", encoding="utf-8")


def _without_place(config: PretrainedConfig) -> PretrainedConfig:
    """A copy of the configuration that does not tell where it was loaded from; transformers 4 writes that down."""
    duplicate = copy.deepcopy(config)
    for each in (duplicate, *vars(duplicate).values()):
        if getattr(each, "_name_or_path", None):
            each._name_or_path = ""
    return duplicate
