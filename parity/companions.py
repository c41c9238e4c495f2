"""Files next to a model file: the configuration and the preprocessor's, so that its directory works on its own."""

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
# Files that any tokenizer may have; its class names the vocabulary's.
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
    """The configuration and the preprocessor's files, which make the directory of a model file usable on its own.

    Args:
        stage: their directory until the model file is written; None if the checkpoint's own directory has them.
        directory: their destination.
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
        """Write the companions of a checkpoint into `stage`.

        Args:
            checkpoint: the checkpoint that is exported.
            stage: a temporary directory.
            models: the model files that they accompany, all of one directory.
            instead: model files that replace those if they fail, without companions.
            overwrite: replace files that are not ours.
            say: gets the list of files that `overwrite` replaces.

        Raises:
            UsageError: a file of `models`, of `instead` or a companion would replace a file that is not ours.
        """
        own = models[0].parent.resolve() == Path(checkpoint.source).expanduser().resolve()
        companions = None if own else _save_companions(checkpoint, stage)
        require_own(models, companions, checkpoint, instead=instead, overwrite=overwrite, say=say)
        return cls(companions, models[0].parent)

    def add_to(self, publication: Publication) -> None:
        """Add them to a publication, which moves them to their place together with the model files."""
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
    """The possible sources of each file that the model's own preprocessor is read from, and its name."""
    preprocessor = checkpoint.preprocessor
    tokenizer = tokenizer_of(preprocessor)
    if tokenizer is not None:
        names = getattr(type(tokenizer), "vocab_files_names", {}).values()
        yield from ((checkpoint.tokenizer_source, name) for name in dict.fromkeys((*_TOKENIZER_FILES, *names)))
    if tokenizer is not preprocessor:
        yield from ((checkpoint.preprocessor_source, name) for name in _PROCESSOR_FILES)
    yield checkpoint.base, "generation_config.json"


def _name_inputs(tokenizer: PreTrainedTokenizerBase, checkpoint: Checkpoint, path: Path) -> None:
    """Make the file's inputs the tokenizer's default, if they differ from it; all else stays as it is.

    A tokenizer of another directory also needs the name of its class, which the model's configuration lacks.
    """
    made = list(tokenizer.model_input_names)
    taken = [name for name in made if name in checkpoint.input_names]
    taken += requested_inputs(tokenizer, checkpoint.input_names)
    changes: dict[str, Any] = {}
    # If the text has another name in the file (a decoder, Perceiver), the names stay.
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
    """A copy of the configuration without the path that it was loaded from, which transformers 4 saves."""
    duplicate = copy.deepcopy(config)
    for each in (duplicate, *vars(duplicate).values()):
        if getattr(each, "_name_or_path", None):
            each._name_or_path = ""
    return duplicate
