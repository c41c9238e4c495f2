"""Replace several files of one directory together: at every moment the old set or the new one is whole.

Files that are run (graphs, TorchScript files) are *entries*; the data and companions that they need lie next to them.
A set of one file is one rename. A larger set is written to a journal first; then the old entries are moved into the
stage, the other files to their place, and last the new entries. So no new entry ever lies next to old data, nor an
old entry next to new data. If a rename fails, the moves are undone; after a crash, the next run completes them.
"""

from __future__ import annotations

import contextlib
import errno
import filecmp
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from parity import schema, stages
from parity.errors import OutputError
from parity.interruptions import deferred, deliver
from parity.paths import require_replaceable
from parity.schema import SchemaError
from parity.stages import JOURNAL

_OLD = "old"
_SMALL = 1 << 26  # bytes up to which a file is compared with the one that it would replace
_NAME = schema.text(500)
_JOURNAL = schema.table(
    {
        "moves": schema.items(schema.items(_NAME, smallest=2, largest=2)),
        "entries": schema.items(_NAME),
        "removals": schema.items(_NAME),
    }
)


class Publication:
    """Files to move from a stage into its directory.

    Args:
        stage: a directory in `directory`, of `files.staging_directory`.
        directory: their destination.
    """

    def __init__(self, stage: Path, directory: Path) -> None:
        self._stage, self._directory = stage, directory
        self._moves: dict[str, Path] = {}
        self._entries: list[str] = []
        self._removals: list[str] = []

    def add_entry(self, staged_file: Path, name: str) -> None:
        """Add a finished file that is run, under this name."""
        self._moves[name] = staged_file
        self._entries.append(name)

    def add(self, staged_file: Path, name: str) -> None:
        """Add a finished file that entries need; a file of the same bytes at its destination stays."""
        if not _is_same(staged_file, self._directory / name):
            self._moves[name] = staged_file

    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""
        self._removals.append(name)

    def commit(self) -> None:
        """Move everything.

        Raises:
            UsageError: a name belongs to a link or to something other than a file.
            OutputError: a move fails; the old files are in their place, or the message says where they are.
        """
        destinations = [self._directory / name for name in self._entries or self._moves]
        for name in (*self._moves, *self._removals):
            require_replaceable(self._directory / name)
        try:
            for path in self._moves.values():
                _sync(path)
            with deferred(), stages.locked(self._directory):
                if len(self._moves) == 1:
                    self._replace_one()
                else:
                    self._replace_all()
        except OSError as error:
            if isinstance(error, OutputError):
                raise
            failure = OutputError(f"output {destinations[0]}: cannot be written: {error.strerror or error}")
            failure.errno = error.errno
            raise failure from error

    def _replace_one(self) -> None:
        ((name, path),) = self._moves.items()
        _rename(path, self._directory / name)
        deliver([self._directory / name])
        try:
            _sync(self._directory)
        except OSError as error:
            raise OutputError(
                f"output {self._directory / name}: is written, but its disk does not confirm it"
                f" ({error.strerror or error}); check the disk"
            ) from error
        for other in self._removals:
            try:
                _unlink(self._directory / other)
            except OSError as error:
                raise OutputError(
                    f"output {self._directory / name}: is written, but {other}, which no longer belongs to it, cannot"
                    f" be removed ({error.strerror or error}); remove it"
                ) from error

    def _replace_all(self) -> None:
        others = [name for name in self._moves if name not in self._entries]
        journal: dict[str, list] = {
            "moves": [[str(self._moves[name].relative_to(self._stage)), name] for name in (*others, *self._entries)],
            "entries": self._entries,
            "removals": self._removals,
        }
        (self._stage / _OLD).mkdir(exist_ok=True)
        steps = _Steps(self._stage, self._directory, journal)
        try:
            _write_journal(self._stage, journal)
            steps.forward()
        except BaseException as error:
            self._go_back(steps, error)
            raise
        deliver(self._directory / name for name in self._entries)
        with contextlib.suppress(OSError):
            _unlink(self._stage / JOURNAL)  # if this fails, the next run finds nothing left to move

    def _go_back(self, steps: _Steps, reason: BaseException) -> None:
        try:
            steps.back()
            _unlink(self._stage / JOURNAL)
        except OSError as error:
            raise OutputError(
                f"output {self._directory}: cannot be written ({getattr(reason, 'strerror', None) or reason}), and the"
                f" old files cannot be put back ({error.strerror or error}): both sets are complete in {self._stage};"
                " the next export into this directory completes what has begun"
            ) from reason


class _Steps:
    """The moves of a journal; a move that was made already is skipped."""

    def __init__(self, stage: Path, directory: Path, journal: dict[str, list]) -> None:
        self._stage, self._directory = stage, directory
        self._staged = {name: stage / place for place, name in journal["moves"]}
        self._entries = [name for name in journal["entries"] if name in self._staged]
        self._others = [name for name in self._staged if name not in self._entries]
        self._removals = [name for name in journal["removals"] if name not in self._staged]

    def forward(self) -> None:
        for name in self._entries:
            self._retire(name)
        _sync(self._directory)
        for name in (*self._others, *self._removals):
            self._retire(name)
        for name in self._others:
            self._place(name)
        _sync(self._directory)
        for name in self._entries:
            self._place(name)
        _sync(self._directory)

    def back(self) -> None:
        for name in (*reversed(self._entries), *reversed(self._others)):
            if not self._staged[name].exists():
                _rename(self._directory / name, self._staged[name])
        _sync(self._directory)
        for name in (*self._removals, *self._others, *self._entries):
            if self._old(name).exists():
                _rename(self._old(name), self._directory / name)
        _sync(self._directory)

    def _retire(self, name: str) -> None:
        """Move the old file into the stage, unless the new one has taken its place."""
        is_new = name in self._staged and not self._staged[name].exists()
        if not is_new and (self._directory / name).exists():
            _rename(self._directory / name, self._old(name))

    def _place(self, name: str) -> None:
        if self._staged[name].exists():
            _rename(self._staged[name], self._directory / name)

    def _old(self, name: str) -> Path:
        return self._stage / _OLD / name


def complete(directory: Path) -> list[str]:
    """Complete publications that dead processes began in the directory, and remove stages; returns the names moved."""
    names: list[str] = []
    for stage in stages.abandoned(directory):
        if (stage / JOURNAL).exists():
            try:
                journal = _read_journal(stage)
            except (OSError, SchemaError) as error:
                raise OutputError(
                    f"output {directory}: an interrupted export left {stage}, whose {JOURNAL} cannot be"
                    f" read ({error}); move what you need out of it, then remove it"
                ) from error
            with deferred(), stages.locked(directory):
                try:
                    _Steps(stage, directory, journal).forward()
                    _unlink(stage / JOURNAL)
                except OSError as error:
                    raise OutputError(
                        f"output {directory}: an interrupted export cannot be completed"
                        f" ({error.strerror or error}); its files are in {stage}"
                    ) from error
            names += [name for _, name in journal["moves"]]
        shutil.rmtree(stage, ignore_errors=True)
    return names


def publish_file(staged_file: Path, destination: Path) -> None:
    """Move one finished file to its destination.

    Raises:
        UsageError, OutputError: see `Publication.commit`.
    """
    publication = Publication(staged_file.parent, destination.parent)
    publication.add_entry(staged_file, destination.name)
    publication.commit()


def _is_same(new: Path, old: Path) -> bool:
    with contextlib.suppress(OSError):
        is_file = not os.path.islink(old) and old.is_file()
        return is_file and new.stat().st_size <= _SMALL and filecmp.cmp(new, old, shallow=False)
    return False


def _write_journal(stage: Path, journal: dict[str, list]) -> None:
    """Write the journal whole or not at all: from its rename on, the publication is carried out."""
    path = stage / f"{JOURNAL}.part"
    _write(path, json.dumps(journal))
    _sync(path)
    for directory in _directories(stage, journal["moves"]):
        _sync(directory)
    _rename(path, stage / JOURNAL)
    _sync(stage)


def _read_journal(stage: Path) -> dict[str, list]:
    """Read the journal of a stage; raises OSError, SchemaError."""
    journal = schema.parse_json((stage / JOURNAL).read_bytes())
    _JOURNAL(journal, JOURNAL)
    names = [*journal["entries"], *journal["removals"], *(name for _, name in journal["moves"])]
    places = [place for place, _ in journal["moves"]]
    # Other users may write into the directory, too.
    if any(Path(name).name != name for name in names) or any(
        Path(place).is_absolute() or ".." in Path(place).parts for place in places
    ):
        raise SchemaError("names files outside, should name those of its directory")
    return journal


def _directories(stage: Path, moves: Iterable[list[str]]) -> set[Path]:
    return {(stage / place).parent for place, _ in moves} | {stage, stage / _OLD}


# Each operation on the disk is in one place: tests let every call fail, and stop at every call.
def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _rename(source: Path, target: Path) -> None:
    os.replace(source, target)


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Make the disk hold what was written; directories can be synced on POSIX only."""
    if path.is_dir() and os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Not every file system can sync a directory.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)
