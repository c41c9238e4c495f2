"""What goes beside a model file: the configuration and the preprocessor's files, so that its directory works alone."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from parity import loading
from parity.checkpoint import Checkpoint
from parity.ownership import require_own
from parity.publication import Publication

if TYPE_CHECKING:
    from transformers import PretrainedConfig


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
    checkpoint.preprocessor.save_pretrained(companions)
    generation = loading.has_file(checkpoint.source, "generation_config.json", checkpoint.cache_dir)
    if generation:
        shutil.copyfile(generation, companions / generation.name)
    for path in companions.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    return companions


def _without_place(config: PretrainedConfig) -> PretrainedConfig:
    """A copy of the configuration that does not tell where it was loaded from; transformers 4 writes that down."""
    duplicate = copy.deepcopy(config)
    for each in (duplicate, *vars(duplicate).values()):
        if getattr(each, "_name_or_path", None):
            each._name_or_path = ""
    return duplicate
