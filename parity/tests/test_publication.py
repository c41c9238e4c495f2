"""Files published together: a crash or failure at any write, sync or rename leaves one complete set."""

import contextlib
import errno
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from parity import publication, stages
from parity.errors import OutputError
from parity.files import staging_directory
from parity.publication import Publication, complete

# Name → (files of the old set, files of the new set), entries first; files only in the old set are removed.
SETS = {
    "data": (("model.onnx", "model.onnx_data"), ("model.onnx", "model.onnx_data")),
    "prefill": (
        ("model.onnx", "prefill.onnx", "config.json", "tokenizer.json"),
        ("model.onnx", "prefill.onnx", "config.json", "tokenizer.json"),
    ),
    "buckets": (("model-64.pt", "model-128.pt", "config.json"), ("model-64.pt", "model-128.pt", "config.json")),
    "data is gone": (("model.onnx", "model.onnx_data"), ("model.onnx",)),
    "data is new": (("model.onnx",), ("model.onnx", "model.onnx_data")),
    "first": ((), ("model.onnx", "config.json", "tokenizer.json")),
    "one": (("model.onnx",), ("model.onnx",)),
}


def is_entry(name):
    return name.endswith((".onnx", ".pt"))


class Crash(BaseException):
    """A power cut: nothing after it reaches the disk."""


class Disk:
    """Counts the calls that reach the disk, and breaks at one of them.

    Args:
        monkeypatch: of pytest.
        at: the number of the breaking call; None lets all through.
        how: `crash`, `fail` once, or `stuck`: every further call fails.
    """

    CALLS = ("_write", "_rename", "_unlink", "_sync")

    def __init__(self, monkeypatch, at=None, how="crash"):
        self.count, self.at, self.how, self.log = 0, at, how, []
        for name in self.CALLS:
            monkeypatch.setattr(publication, name, self._watch(name, getattr(publication, name)))
        if how == "crash" and at is not None:
            monkeypatch.setattr(stages.Stage, "close", lambda stage: os.close(stage._lock))

    def _watch(self, name, function):
        def call(*arguments):
            number, self.count = self.count, self.count + 1
            if self.at is not None and (number == self.at or (number > self.at and self.how != "fail")):
                raise Crash if self.how == "crash" else OSError(errno.EIO, os.strerror(errno.EIO))
            self.log.append((name, *arguments))
            # The effect of a sync cannot be observed here, only the call.
            return None if name == "_sync" else function(*arguments)

        return call


def publish(directory, names, version, removals=()):
    """Publish a set of that version like a command."""
    with staging_directory(directory / names[0]) as stage:
        (stage / "companions").mkdir()
        new = Publication(stage, directory)
        for name in names:
            path = stage / name if is_entry(name) else stage / "companions" / name
            path.write_text(f"{version} {name}")
            (new.add_entry if is_entry(name) else new.add)(path, name)
        for name in removals:
            new.remove(name)
        new.commit()


def prepare(directory, case):
    old, new = SETS[case]
    for name in old:
        (directory / name).write_text(f"old {name}")
    (directory / "notes.md").write_text("not ours")
    return old, new, [name for name in old if name not in new]


def versions(directory, names):
    """Name → version of the file with that final name."""
    return {name: (directory / name).read_text().split()[0] for name in names if (directory / name).exists()}


def require_no_mixture(directory, old, new):
    """Each present entry has all files of its set, in its own version."""
    present = versions(directory, {*old, *new})
    entries = {version for name, version in present.items() if is_entry(name)}
    assert len(entries) < 2, present
    for version in entries:
        needed = [name for name in (old if version == "old" else new) if not is_entry(name)]
        assert [present.get(name) for name in needed] == [version] * len(needed), present


def contents(directory):
    return {path.read_text() for path in directory.rglob("*") if path.is_file()}


def require_whole(directory, old, new):
    """One of the sets is completely on the disk, under any names."""
    there = contents(directory)
    assert {f"old {name}" for name in old} <= there or {f"new {name}" for name in new} <= there


def require_set(directory, names, version):
    """The final names have exactly this set, apart from foreign files, and no stage is left."""
    there = {path.name: path.read_text() for path in directory.iterdir() if path.name != "notes.md"}
    assert there == {name: f"{version} {name}" for name in names}


def steps_of(case, tmp_path_factory):
    """The number of calls that reach the disk."""
    directory = tmp_path_factory.mktemp("count")
    with pytest.MonkeyPatch.context() as patch:
        _, new, gone = prepare(directory, case)
        disk = Disk(patch)
        publish(directory, new, "new", gone)
        require_set(directory, new, "new")
        return disk.count


def crash(directory, new, gone, at):
    """Publish the new set, and crash at a step."""
    with pytest.MonkeyPatch.context() as patch:
        Disk(patch, at)
        with pytest.raises(Crash):
            publish(directory, new, "new", gone)


@pytest.mark.parametrize("case", SETS)
def test_a_crash_at_every_step(case, tmp_path_factory):
    """One set is complete and unmixed; the next run completes the publication, and an export over it succeeds."""
    count = steps_of(case, tmp_path_factory)
    assert count >= 3
    outcomes = set()
    for at in range(count):
        directory = tmp_path_factory.mktemp("crash")
        old, new, gone = prepare(directory, case)
        crash(directory, new, gone, at)
        require_no_mixture(directory, old, new)
        require_whole(directory, old, new)
        complete(directory)
        require_no_mixture(directory, old, new)
        standing = {version for name, version in versions(directory, new).items() if is_entry(name)}
        outcomes |= standing
        if standing == {"old"} or not standing:
            require_set(directory, old, "old")
        else:
            assert dict.fromkeys(new, "new") == versions(directory, new)
        publish(directory, new, "new", gone)
        require_set(directory, new, "new")
    assert "new" in outcomes


@pytest.mark.parametrize("case", SETS)
def test_a_crash_while_a_crash_is_mended(case, tmp_path_factory):
    """The run that completes an interrupted publication may crash too, at every step."""
    for first in (0.6, 0.9):
        count = steps_of(case, tmp_path_factory)
        for at in itertools.count():
            directory = tmp_path_factory.mktemp("twice")
            old, new, gone = prepare(directory, case)
            crash(directory, new, gone, int(count * first))
            with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Crash):
                disk = Disk(patch, at)
                complete(directory)
            require_no_mixture(directory, old, new)
            require_whole(directory, old, new)
            complete(directory)
            require_no_mixture(directory, old, new)
            assert not list(directory.glob(".parity-*"))
            if disk.count <= at:
                break


@pytest.mark.parametrize("case", SETS)
def test_a_failure_at_every_step(case, tmp_path_factory):
    """One error, and the old set is unchanged; the new set is there only if the very last steps fail."""
    outcomes = []
    for at in range(steps_of(case, tmp_path_factory)):
        directory = tmp_path_factory.mktemp("fail")
        old, new, gone = prepare(directory, case)
        message = ""
        with pytest.MonkeyPatch.context() as patch:
            Disk(patch, at, "fail")
            try:
                publish(directory, new, "new", gone)
            except OutputError as error:
                message = str(error)
        complete(directory)
        version = "new" if "is written, but" in message or not message else "old"
        left = gone if "cannot be removed" in message or "does not confirm" in message else []
        for name in left:
            (directory / name).unlink()
        require_set(directory, new if version == "new" else old, version)
        outcomes.append(version)
        publish(directory, new, "new", gone)
        require_set(directory, new, "new")
    assert outcomes == sorted(outcomes, reverse=True)
    assert outcomes[0] == "old"
    assert outcomes.count("new") <= 2


@pytest.mark.parametrize("case", SETS)
def test_a_disk_that_takes_nothing_more(case, tmp_path_factory):
    """From some step on every call fails: one set is complete and unmixed, and the message says where it is."""
    for at in range(steps_of(case, tmp_path_factory)):
        directory = tmp_path_factory.mktemp("stuck")
        old, new, gone = prepare(directory, case)
        message = ""
        with pytest.MonkeyPatch.context() as patch:
            Disk(patch, at, "stuck")
            try:
                publish(directory, new, "new", gone)
            except OutputError as error:
                message = str(error)
        require_no_mixture(directory, old, new)
        require_whole(directory, old, new)
        left = [str(path) for path in directory.glob(".parity-*")]
        assert not left or not message or left[0] in message
        complete(directory)
        assert not list(directory.glob(".parity-*"))
        publish(directory, new, "new", gone)
        require_set(directory, new, "new")


def test_a_failed_rename_is_one_sentence(tmp_path, monkeypatch):
    """The error names the output and the reason, and the old set is unchanged."""
    old, new, _ = prepare(tmp_path, "data")
    count = 0

    def rename(source, target):
        nonlocal count
        count += 1
        if count == 4:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        os.replace(source, target)

    monkeypatch.setattr(publication, "_rename", rename)
    with pytest.raises(OutputError, match=f"output {tmp_path / 'model.onnx'}: cannot be written: Input/output error"):
        publish(tmp_path, new, "new")
    require_set(tmp_path, old, "old")


def test_naive_renames_would_be_seen(tmp_path):
    """The control: plain renames one after the other leave a mixture until the last."""
    old, new, _ = prepare(tmp_path, "data")
    graph, data = new
    (tmp_path / data).write_text(f"new {data}")
    with pytest.raises(AssertionError):
        require_no_mixture(tmp_path, old, new)
    (tmp_path / graph).write_text(f"new {graph}")
    require_no_mixture(tmp_path, old, new)


def test_everything_is_synced_before_it_is_named(tmp_path, monkeypatch):
    """No file gets its final name before its bytes, and those of the journal, are on the disk."""
    _, new, _ = prepare(tmp_path, "prefill")
    disk = Disk(monkeypatch)
    publish(tmp_path, new, "new")
    synced = set()
    for name, *arguments in disk.log:
        if name == "_sync":
            synced.add(arguments[0])
        elif name == "_rename" and arguments[1].parent == tmp_path:
            assert arguments[0] in synced
    first = next(index for index, (name, *paths) in enumerate(disk.log) if name == "_rename")
    assert disk.log[first][2].name == stages.JOURNAL


def test_equal_companions_stay(tmp_path):
    """A companion with equal bytes is not replaced: so the file needs one rename, and readers never miss it."""
    (tmp_path / "config.json").write_text("new config.json")
    before = (tmp_path / "config.json").stat().st_ino
    publish(tmp_path, ("model.onnx", "config.json"), "new")
    assert (tmp_path / "config.json").stat().st_ino == before


def test_a_stage_of_a_living_process_stays(tmp_path):
    """The stage of another running export stays; the stage of a killed process is removed."""
    code = (
        "import sys, time; from pathlib import Path; from parity.stages import Stage\n"
        "stage = Stage(Path(sys.argv[1])); print(stage.path.name, flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        name = process.stdout.readline().strip()
        publish(tmp_path, ("model.onnx",), "new")
        assert (tmp_path / name).is_dir()
        process.send_signal(signal.SIGKILL)
        process.wait()
    publish(tmp_path, ("model.onnx",), "newer")
    assert not (tmp_path / name).exists()
    assert list(tmp_path.iterdir()) == [tmp_path / "model.onnx"]


def test_stages_are_told_apart(tmp_path):
    """Without its lock a stage is removed only if its process was on this host and has ended."""
    mine = f"{stages.PREFIX}{stages._host()}-{os.getpid()}-{stages._start(os.getpid())}-a"
    reused = f"{stages.PREFIX}{stages._host()}-{os.getpid()}-00000000-b"
    gone = f"{stages.PREFIX}{stages._host()}-4194305-00000000-c"
    foreign = f"{stages.PREFIX}ffffffff-4194305-00000000-d"
    for name in (mine, reused, gone, foreign, ".parity-old"):
        (tmp_path / name).mkdir()
    complete(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {mine, foreign, ".parity-old"}


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "."])
def test_a_journal_moves_nothing_outside(tmp_path, name):
    """A journal with files of other directories is refused, and its stage stays."""
    stage = tmp_path / f"{stages.PREFIX}{stages._host()}-4194305-00000000-c"
    stage.mkdir()
    (stage / "model.onnx").write_text("new")
    journal = {"moves": [["model.onnx", name]], "entries": [name], "removals": []}
    (stage / stages.JOURNAL).write_text(json.dumps(journal))
    with pytest.raises(OutputError, match=r"an interrupted export left .* cannot be read"):
        complete(tmp_path)
    assert (stage / "model.onnx").exists()


def test_signals_wait_for_the_end(tmp_path):
    """SIGTERM during a publication: the set is complete, and the signal is handled afterwards."""
    code = (
        "import os, signal, sys; from pathlib import Path; from parity import publication\n"
        "from parity.tests.test_publication import publish\n"
        "own, count = publication._rename, []\n"
        "def rename(source, target):\n"
        "    count.append(1)\n"
        "    if len(count) == 3:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    own(source, target)\n"
        "publication._rename = rename\n"
        "publish(Path(sys.argv[1]), ('model.onnx', 'model.onnx_data', 'config.json'), 'new')"
    )
    for name in SETS["data"][0]:
        (tmp_path / name).write_text(f"old {name}")
    root = Path(__file__).parents[2]
    process = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root, capture_output=True, check=False)
    assert process.returncode == -signal.SIGTERM, process.stderr.decode()
    names = ("model.onnx", "model.onnx_data", "config.json")
    assert versions(tmp_path, names) == dict.fromkeys(names, "new")
