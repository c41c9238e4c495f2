"""Exports in several threads take turns, and torch, transformers and Python are unpatched afterwards."""

import contextlib
import functools
import logging
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from parity import turns
from parity.configs import PatchingSpec
from parity.fixtures import subjects


def patchable():
    """Everything that an export changes temporarily, in its current state."""
    import torch

    masking = sys.modules.get("transformers.masking_utils")
    return {
        "Tensor": dict(vars(torch.Tensor)),
        "Function": dict(vars(torch.autograd.Function)),
        "torch": {name: getattr(torch, name) for name in ("triu", "tril", "tanh")},
        "sdpa": torch.nn.functional.scaled_dot_product_attention,
        "dtype": torch.get_default_dtype(),
        "masking": dict(vars(masking)) if masking else {},
        "level": logging.getLogger("transformers").level,
        "filters": list(warnings.filters),
    }


def export_onnx(subject, directory):
    from parity.onnx import export

    export(subject.source.preprocessor, subject.fresh_model(), subject.onnx_config, 12, directory / "model.onnx")


def export_torchscript(subject, directory):
    from parity.torchscript import export

    export(subject.fresh_model(), subject.source.dummy, directory / "model.pt", onnx_config=subject.onnx_config)


class Overlaps:
    """Measures how many calls of a function run at once; a call waits a moment for others."""

    def __init__(self, function):
        self.function, self.most, self._now, self._lock = function, 0, 0, threading.Lock()
        self._second = threading.Event()

    def __call__(self, *arguments, **options):
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
            if self._now > 1:
                self._second.set()
        self._second.wait(0.2)
        try:
            return self.function(*arguments, **options)
        finally:
            with self._lock:
                self._now -= 1


@pytest.fixture
def overlaps(monkeypatch):
    """torch's exporter and tracer, observed."""
    import torch

    watched = Overlaps(lambda *arguments, **options: None)
    run = watched.__call__

    def watch(function):
        @functools.wraps(function)
        def call(*arguments, **options):
            run()
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(torch.onnx, "export", watch(torch.onnx.export))
    monkeypatch.setattr(torch.jit, "trace", watch(torch.jit.trace))
    return watched


def in_threads(functions):
    with ThreadPoolExecutor(len(functions)) as pool:
        return [future.result() for future in [pool.submit(function) for function in functions]]


def test_exports_from_threads(overlaps, tmp_path):
    """Four exports of two interfaces at once: all files exist, one ran at a time, and nothing stays patched."""
    subject = subjects.subject("gpt2", "causal-lm")
    export_onnx(subject, tmp_path)
    export_torchscript(subject, tmp_path)
    before = patchable()
    functions = []
    for number in range(4):
        directory = tmp_path / str(number)
        directory.mkdir()
        export = export_onnx if number % 2 else export_torchscript
        functions.append(lambda export=export, directory=directory: export(subject, directory))
    in_threads(functions)
    assert patchable() == before
    assert overlaps.most == 1
    assert sorted(path.name for path in tmp_path.glob("?/*")) == ["model.onnx"] * 2 + ["model.pt"] * 2
    first = (tmp_path / "model.onnx").read_bytes()
    assert [path.read_bytes() == first for path in tmp_path.glob("?/model.onnx")] == [True, True]


def test_without_turns_they_would_overlap(monkeypatch):
    """The control: functions in turn run one at a time; without the lock, several."""

    def most():
        watched = Overlaps(lambda: None)
        in_threads([turns.in_turn(watched)] * 3)
        return watched.most

    assert most() == 1
    monkeypatch.setattr(turns, "turn", contextlib.nullcontext)
    assert most() > 1


def contexts():
    from parity.loading import quiet_transformers
    from parity.releases import traceable_masks
    from parity.torchscript.trace import _inline_functions
    from parity.traceable import triangles_of_comparisons, zeros_where_nothing_is_seen

    return [
        triangles_of_comparisons,
        zeros_where_nothing_is_seen,
        traceable_masks,
        quiet_transformers,
        _inline_functions,
    ]


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["first leaves first", "last leaves first"])
def test_overlapping_patches_are_undone(number, order):
    """Two overlapping uses of one patch: it holds until both have ended, and is undone then."""
    make = contexts()[number]
    before = patchable()
    stacks = [contextlib.ExitStack(), contextlib.ExitStack()]
    for stack in stacks:
        stack.enter_context(make())
    inside = patchable()
    stacks[order[0]].close()
    assert patchable() == inside
    stacks[order[1]].close()
    assert patchable() == before


def test_overlapping_substitutes_are_undone():
    """Operators of two configurations for one attribute, one of them inherited; created while another is active."""
    import torch

    from parity.architectures.bert import BertOnnxConfig

    before = patchable()

    def config(operator):
        return BertOnnxConfig(
            None, patching_specs=[PatchingSpec(torch, "tanh", operator), PatchingSpec(torch.Tensor, "view", operator)]
        )

    first = config(torch.sin)
    first.patch_ops()
    second = config(torch.cos)
    second.patch_ops()
    assert torch.tanh is torch.cos
    first.restore_ops()
    assert torch.tanh is torch.cos
    second.restore_ops()
    second.restore_ops()
    assert patchable() == before
