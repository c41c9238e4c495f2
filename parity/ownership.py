"""The owner of the files that a command would replace: an earlier export of the same model, or somebody else."""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from parity.archives import read_owner
from parity.errors import UsageError
from parity.onnx_files import REJECTED, data_file
from parity.paths import require_replaceable
from parity.schema import SchemaError, read_json

if TYPE_CHECKING:
    from parity.checkpoint import Checkpoint

_MODELS = (".onnx", ".pt")


def require_own(
    models: Sequence[Path],
    companions: Path | None,
    checkpoint: Checkpoint,
    *,
    instead: Sequence[Path] = (),
    overwrite: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """Refuse to replace files that no earlier export of this model wrote.

    A model file is ours if it says that parity wrote it from a model of this type; the data and the companions next to
    it are then ours too. Replacing a file by the same bytes is no conflict.

    Args:
        models: the model files that will be written, all into one directory.
        companions: a directory with the files that will be written next to them.
        checkpoint: the exported checkpoint; its fingerprint is computed if other exports' companions would be replaced.
        instead: model files that replace those if they fail, without companions.
        overwrite: replace foreign files all the same.
        say: gets their list.

    Raises:
        UsageError: names every foreign file; or a path is a link, not a file at all, or the checkpoint's own, which
            nothing overwrites.
    """
    for path in (*models, *instead, *(models[0].parent / each.name for each in _files_of(companions))):
        require_replaceable(path)
        _require_output(path, checkpoint)
    foreign = [*conflicts(models, companions, checkpoint), *others(instead, checkpoint.model_type)]
    if not foreign:
        return
    names = ", ".join(map(str, foreign))
    if not overwrite:
        raise UsageError(
            f"output: {names} would be replaced, and no earlier export of this {checkpoint.model_type} wrote it; give"
            " another output, or --overwrite to replace it"
        )
    say(f"Overwriting: {names}")


def conflicts(models: Sequence[Path], companions: Path | None, checkpoint: Checkpoint) -> list[Path]:
    """The files that would be replaced and are not ours.

    Args:
        models, companions, checkpoint: see `require_own`.
    """
    foreign = others(models, checkpoint.model_type)
    own = [path for path in models if os.path.lexists(path) and path not in foreign]
    directory = models[0].parent
    differing = [directory / path.name for path in _files_of(companions) if _differs(path, directory / path.name)]
    if differing and not own and not _is_theirs(directory, checkpoint):
        foreign += differing
    return foreign


def _files_of(companions: Path | None) -> list[Path]:
    return sorted(companions.iterdir()) if companions else []


def _require_output(path: Path, checkpoint: Checkpoint) -> None:
    """Refuse to write a file that the checkpoint itself is read from, such as its configuration or its weights."""
    if path.suffix in _MODELS or not os.path.lexists(path):
        return
    for source in dict.fromkeys((checkpoint.source, checkpoint.base)):
        with contextlib.suppress(OSError):
            if os.path.samefile(path.parent, Path(source).expanduser()):
                raise UsageError(f"output {path}: is a file of the checkpoint itself; give another place")


def others(models: Sequence[Path], model_type: str) -> list[Path]:
    """The model files among these that exist and are not ours, and data files without a model."""
    foreign: list[Path] = []
    for path in models:
        if os.path.lexists(path):
            foreign += [] if is_ours(path, model_type) else [path]
        elif os.path.lexists(data_file(path)):
            foreign.append(data_file(path))
    return foreign


def is_ours(path: Path, model_type: str) -> bool:
    """Whether parity wrote the model file from a model of that type."""
    facts = facts_of(path)
    if "parity" not in facts:
        return False
    # Until 0.1 only the configuration next to an ONNX file had the type.
    return (facts.get("model_type") or _type_beside(path)) == model_type


def facts_of(path: Path) -> Mapping[str, str]:
    """The metadata of an ONNX file, or the owner's facts in a TorchScript archive of ours; empty for other files."""
    if not path.is_file():
        return {}
    if zipfile.is_zipfile(path):
        return read_owner(path)
    try:
        import onnx

        model = onnx.load(str(path), load_external_data=False)
    except Exception:
        return {}  # no ONNX file, or a host without onnx, which writes none
    return {entry.key: entry.value for entry in model.metadata_props}


def _type_beside(path: Path) -> str | None:
    try:
        config = read_json(path.parent / "config.json", constants=True)
    except SchemaError:
        return None
    return config.get("model_type") if isinstance(config, dict) else None


def _differs(new: Path, old: Path) -> bool:
    if not os.path.lexists(old):
        return False
    return not old.is_file() or old.read_bytes() != new.read_bytes()


def _is_theirs(directory: Path, checkpoint: Checkpoint) -> bool:
    """Whether the companions belong to other exports of this very checkpoint, which stay."""
    outputs = [path for path in directory.iterdir() if path.suffix in _MODELS and not path.stem.endswith(REJECTED)]
    exports = [path for path in outputs if is_ours(path, checkpoint.model_type)]
    known = {facts_of(path).get("checkpoint") for path in exports} - {None}
    return bool(exports) and known <= {checkpoint.fingerprint}
