"""Broken checkpoint directories and names: one sentence with the file, its fault, and the next step."""

import json
import os
import shutil

import pytest

from parity.fixtures.checkpoints import save_checkpoint
from parity.fixtures.controls import commands
from parity.onnx.__main__ import main


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The directory of a tiny bert checkpoint."""
    directory = tmp_path_factory.mktemp("bert")
    save_checkpoint(directory, "bert")
    return directory


def content(name, text):
    return lambda directory: (directory / name).write_text(text)


def item(value, name="hidden_size"):
    def change(directory):
        path = directory / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))

    return change


def both(value, *names):
    return lambda directory: [item(value, name)(directory) for name in names]


def replaced(make):
    def change(directory):
        (directory / "config.json").unlink()
        make(directory / "config.json")

    return change


SIZE = "config.json: hidden_size is {}, should be a whole number"
BROKEN = {
    "null": (content("config.json", "null"), "config.json is null, should be an object"),
    "number": (content("config.json", "3"), "config.json is a number, should be an object"),
    "brackets": (content("config.json", "[" * 100_000), "config.json is nested too deeply"),
    "objects": (content("config.json", '{"a":' * 100_000), "config.json is nested too deeply"),
    "bytes": (
        lambda directory: (directory / "config.json").write_bytes(b"\xff\xfe\x00"),
        "config.json is not valid JSON",
    ),
    "directory": (replaced(os.mkdir), "config.json is a directory, should be a file"),
    "dangling": (replaced(lambda path: path.symlink_to("nowhere")), "config.json is a link that leads nowhere"),
    "loop": (replaced(lambda path: path.symlink_to(path)), "config.json is a link that leads nowhere"),
    "FIFO": (replaced(os.mkfifo), "config.json is a FIFO, should be a file"),
    "zero": (replaced(lambda path: path.symlink_to("/dev/zero")), "config.json is a device, should be a file"),
    "tokenizer": (content("tokenizer.json", "{"), "tokenizer.json is not valid JSON (line 1)"),
    "tokenizer_config": (content("tokenizer_config.json", "["), "tokenizer_config.json is not valid JSON (line 1)"),
    "dtype": (
        both("/dev/zero", "dtype", "torch_dtype"),
        "its dtype is '/dev/zero', should be a type of PyTorch",
    ),
    "size 0": (item(0), SIZE.format(0)),
    "size -1": (item(-1), SIZE.format(-1)),
    "size NaN": (item(float("nan")), SIZE.format("nan")),
    "size 10**12": (item(10**12), SIZE.format(10**12)),
    "size 10**30": (item(10**30), SIZE.format(10**30)),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_directories(tmp_path, checkpoint, case):
    """Only regular files are opened, no size is allocated, and no bare exception text is printed."""
    change, message = BROKEN[case]
    directory = shutil.copytree(checkpoint, tmp_path / "checkpoint")
    change(directory)
    status, out, err = commands.run("-m", directory, "--quiet", tmp_path / "output", command=main)
    assert (status, out) == (1, "")
    (line,) = (line for line in err.splitlines() if not line.startswith("note: "))
    assert line.startswith(f"python -m parity.onnx: error: {directory}: ")
    assert message in line
    assert "again" in line
    assert "Error" not in line
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize("value", ["3", "word", None, [1], True, {"a": 1}])
def test_sizes_of_another_type(tmp_path, checkpoint, value):
    """A transformers error about an item, if there is one, becomes a sentence."""
    directory = shutil.copytree(checkpoint, tmp_path / "checkpoint")
    item(value)(directory)
    status, _, err = commands.run("-m", directory, "--quiet", tmp_path / "output", command=main)
    assert status == 1
    assert "save the checkpoint again with save_pretrained" in err
    assert "Strict" not in err
    assert "Traceback" not in err


def test_infinity_is_no_error(tmp_path, checkpoint):
    """The control: Python writes infinity into configurations, and some architectures use it."""
    directory = shutil.copytree(checkpoint, tmp_path / "checkpoint")
    item(float("inf"), "somebodys_limit")(directory)
    assert commands.run("-m", directory, "--quiet", tmp_path / "output", command=main)[0] == 0


NAMES = {
    "x" * 5000: "no file can have that name",
    "x/" * 2500: "no file can have that name",
    "~nosuchuser/model": "there is no such user",
    "a..b": "nor a Hub id",
    "a--b": "nor a Hub id",
    "x" * 97: "nor a Hub id",
    os.fsdecode(b"caf\xe9"): "its name is not valid UTF-8",
    "a\0b": "no file can have that name",
}


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_that_nothing_has(tmp_path, name):
    """A usage error: status 2, a short sentence, before anything is imported or requested."""
    status, _, err = commands.run("-m", name, "--quiet", tmp_path / "output", command=main)
    assert status == 2
    assert NAMES[name] in err
    assert err.startswith("python -m parity.onnx: error: --model ")
    assert len(err) < 600
    assert not (tmp_path / "output").exists()
