"""Outputs at existing paths: no foreign file is silently replaced, and no file of the checkpoint is overwritten."""

import errno
import functools
import os
import shutil
import stat
import subprocess
import sys

import pytest

from parity.console import Console
from parity.errors import UsageError
from parity.fixtures import subjects
from parity.fixtures.checkpoints import save_checkpoint
from parity.fixtures.controls import commands
from parity.neuron.__main__ import main as neuron
from parity.onnx.__main__ import main as onnx
from parity.torchscript.__main__ import main as torchscript

MODELS = {
    "onnx": (onnx, "model.onnx", ()),
    "torchscript": (torchscript, "model.pt", ()),
    "neuron": (neuron, "model.pt", ("--emulate", "--sequence-length", 8)),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The directory of a tiny bert checkpoint."""
    directory = tmp_path_factory.mktemp("bert")
    save_checkpoint(directory, "bert")
    return directory


def make_fifo(path):
    os.mkfifo(path)


def make_device(path):
    if os.geteuid() != 0:
        pytest.skip("only root can make a device node to try it on")
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))


def make_link(path):
    (path.parent / "somebody.txt").write_text("somebody's")
    path.symlink_to(path.parent / "somebody.txt")


def link_to(target):
    return lambda path: path.symlink_to(target)


# Kind → (constructor, its sentence).
PLACES = {
    "FIFO": (make_fifo, "is a FIFO, should be a file or nothing; give another place"),
    "device": (make_device, "is a device, should be a file or nothing; give another place"),
    "link to a device": (link_to("/dev/null"), "is a link to /dev/null, should be a file or nothing"),
    "link to a file": (make_link, "should be a file or nothing; give what it leads to, or remove the link"),
    "dangling link": (link_to("nowhere"), "is a link to nowhere, should be a file or nothing"),
    "loop": (link_to("model.onnx"), "is a link to model.onnx, should be a file or nothing"),
}


def state(directory):
    """Name → state of each path, without opening it."""
    return {
        path.name: (path.lstat().st_ino, path.lstat().st_mode, path.lstat().st_size) for path in directory.iterdir()
    }


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("options", [(), ("--overwrite",)], ids=["plain", "overwrite"])
def test_what_is_no_file_is_not_replaced(tmp_path, checkpoint, place, options):
    """Status 2 and one sentence, before any work; --overwrite does not change that."""
    make, words = PLACES[place]
    make(tmp_path / "model.onnx")
    before = state(tmp_path)
    status, out, err = commands.run("-m", checkpoint, *options, tmp_path / "model.onnx", command=onnx)
    assert (status, out) == (2, "")
    assert err.startswith(f"python -m parity.onnx: error: output {tmp_path / 'model.onnx'}: is a ")
    assert words in err
    assert state(tmp_path) == before


@pytest.mark.parametrize("kind", MODELS)
def test_companions_replace_no_link(tmp_path, checkpoint, kind):
    """Every command refuses a companion that is a link, and its target stays."""
    command, _, options = MODELS[kind]
    (tmp_path / "mine.json").write_text("{}")
    (tmp_path / "config.json").symlink_to(tmp_path / "mine.json")
    before = state(tmp_path)
    status, _, err = commands.run("-m", checkpoint, "--quiet", *options, "--overwrite", tmp_path, command=command)
    assert status == 2
    assert f"output {tmp_path / 'config.json'}: is a link to {tmp_path / 'mine.json'}" in err
    assert state(tmp_path) == before


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("kind", MODELS)
def test_the_checkpoint_is_never_the_output(tmp_path, checkpoint, kind, name):
    """Its files are refused even with --overwrite, by name and through a link to the directory."""
    command, _, options = MODELS[kind]
    own = shutil.copytree(checkpoint, tmp_path / "own")
    (tmp_path / "link").symlink_to(own)
    before = state(own)
    for directory in (own, tmp_path / "link"):
        output = directory / name
        status, _, err = commands.run("-m", own, "--quiet", *options, "--overwrite", output, command=command)
        assert status == 2
        assert f"output {output}: is a file of the checkpoint itself; give another place" in err
    assert state(own) == before


def test_the_directory_may_be_a_link(tmp_path, checkpoint):
    """The files go to the target of the link."""
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    assert commands.run("-m", checkpoint, "--quiet", tmp_path / "link", command=onnx)[0] == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "model.onnx").is_file()


def test_functions_refuse_the_same(tmp_path):
    """`parity.onnx.export`, `parity.torchscript.export` and `parity.neuron.trace` replace no link by a file."""
    from parity.neuron import trace
    from parity.onnx import export as export_onnx
    from parity.torchscript import export

    subject = subjects.subject("bert", "default")
    (tmp_path / "somebody.txt").write_text("somebody's")
    output = tmp_path / "model"
    output.symlink_to(tmp_path / "somebody.txt")
    call = functools.partial(trace, emulate=True, onnx_config=subject.onnx_config, prove=False)
    for function, arguments in (
        (export_onnx, (subject.source.preprocessor, subject.model, subject.onnx_config, 14, output)),
        (export, (subject.model, subject.source.dummy, output)),
        (call, (subject.model, subject.source.dummy, output)),
    ):
        with pytest.raises(UsageError, match=f"output {output}: is a link to {tmp_path / 'somebody.txt'}"):
            function(*arguments)
    assert (tmp_path / "somebody.txt").read_text() == "somebody's"
    assert output.is_symlink()


def test_an_output_that_no_disk_takes(tmp_path, checkpoint):
    """A name with a NUL byte, or one that is too long, gives one sentence about the output."""
    for name in ("model\0.onnx", "x" * 5000 + ".onnx", os.fsdecode(b"caf\xe9.onnx")):
        status, _, err = commands.run("-m", checkpoint, "--quiet", f"{tmp_path}/{name}", command=onnx)
        assert status == 1
        assert "cannot be written (" in err
        assert len(err) < 1000
    assert list(tmp_path.iterdir()) == []


def test_companions_of_a_model_that_cannot_be_moved(tmp_path, checkpoint, monkeypatch):
    """If a rename fails, as in a sticky directory, nothing is replaced, not even companions."""
    own = os.replace

    def refuse(source, target):
        if os.path.basename(target) == "model.onnx" and ".parity-" not in str(target):
            raise PermissionError(1, "Operation not permitted")
        own(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    status, _, err = commands.run("-m", checkpoint, "--quiet", tmp_path, command=onnx)
    assert status == 1
    assert f"output {tmp_path / 'model.onnx'}: cannot be written: Operation not permitted" in err
    assert list(tmp_path.iterdir()) == []


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
from parity.console import leave
from parity.torchscript.__main__ import main
leave(main(sys.argv[2:]))
"""


def export_within(size, checkpoint, output):
    command = [sys.executable, "-c", LIMITED, str(size), "-m", str(checkpoint), "--quiet", str(output)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_no_room_for_a_torchscript_file(tmp_path, checkpoint):
    """torch's writer ends the process (signal 6) on a full disk: we print one sentence, and nothing is left."""
    process = export_within(100_000, checkpoint, tmp_path / "output")
    assert process.returncode == 1
    output = tmp_path / "output" / "model.pt"
    assert process.stderr.startswith(f"python -m parity.torchscript: error: output {output}: cannot be written: File")
    assert len(process.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_room_enough_for_a_torchscript_file(tmp_path, checkpoint):
    """The control: the file is written."""
    process = export_within(1_000_000, checkpoint, tmp_path / "output")
    assert (process.returncode, process.stderr) == (0, "")
    assert (tmp_path / "output" / "model.pt").is_file()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("kind", ["torchscript", "neuron"])
def test_room_is_asked_for(tmp_path, checkpoint, monkeypatch, kind, number):
    """A full disk, a quota and a limit are detected before torch begins to write."""
    import torch

    command, _, options = MODELS[kind]

    def refuse(*arguments):
        raise OSError(number, os.strerror(number))

    def save(*arguments, **more):
        raise AssertionError("torch has begun to write")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    monkeypatch.setattr(torch.jit, "save", save)
    output = tmp_path / "output"
    status, _, err = commands.run("-m", checkpoint, "--quiet", *options, output, command=command)
    assert status == 1
    assert len(err.splitlines()) == 1
    assert f"output {output / 'model.pt'}: " in err
    assert ("cannot be written: File too large" if number == errno.EFBIG else "no space left; free some") in err
    assert list(tmp_path.iterdir()) == []


def test_a_warning_is_no_line_of_standard_output(monkeypatch, capsys):
    """If standard error is closed, Python would print the warning there, into the JSON."""
    monkeypatch.setattr(sys, "stderr", None)
    Console(as_json=True).warn("the tokenizer has lost its words")
    assert capsys.readouterr().out == ""
