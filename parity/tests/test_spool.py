"""Answers that are too large for memory: they are unchanged on the disk, and no judgement needs all of them at once."""

import dataclasses
import mmap
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from parity.errors import OutputError
from parity.fixtures import subjects
from parity.judge import decisions, ratio, relations, spool, vacuity
from parity.judge.pool import Pool

ARRAYS = {
    "matrix": np.arange(12.0).reshape(3, 4)[:, ::2],
    "halves": np.arange(40).astype("float16"),
    "ids": np.arange(50).reshape(5, 10),
    "truths": np.array([True, False]),
    "number": np.array(3.5),
    "nothing": np.zeros((0, 3)),
}


def with_brain_floats():
    import ml_dtypes

    return {**ARRAYS, "brain": np.arange(9).astype(ml_dtypes.bfloat16)}


@pytest.mark.parametrize("memory", [0, 100, 10**6])
def test_arrays_come_back_as_they_were(memory):
    """Values, types, shapes and order, for any limit of memory."""
    arrays = with_brain_floats()
    kept = spool.Spool(memory).keep(arrays)
    assert list(kept) == list(arrays)
    for name, array in arrays.items():
        assert (kept[name].dtype, kept[name].shape) == (array.dtype, array.shape)
        assert kept[name].tobytes() == array.tobytes()
        assert kept[name].flags.aligned
    assert (kept["ids"] is kept["ids"]) == (memory == 10**6)


LIMITED = """
import resource
import numpy as np
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
from parity.judge.spool import Spool
Spool(0).keep({"logits": np.zeros(100)})
try:
    Spool(0).keep({"logits": np.zeros(1000)})
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_full_disk_is_reported_by_its_name():
    """The error names the temporary directory, the bytes, and what to do; smaller answers are kept."""
    process = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, check=True)
    assert process.stdout.startswith(f"OutputError temporary directory {tempfile.gettempdir()}: it has no space for")
    assert "8,000 bytes of answers (File too large); free some, or set TMPDIR" in process.stdout


def test_a_file_that_lost_its_end_is_no_answer():
    """A shortened file of answers is an error, so that unread memory is never compared."""
    kept = spool.Spool(0).keep({"logits": np.arange(4.0)})
    kept._held["logits"].file._stream.truncate(8)
    with pytest.raises(OutputError, match="has lost its end; run it again"):
        kept["logits"]


def test_a_changed_array_is_seen():
    """The control: the comparison by bits detects a change of one element, and of the sign of a zero."""
    assert spool.are_equal_in_bits(ARRAYS["matrix"], ARRAYS["matrix"].copy())
    other = ARRAYS["matrix"].copy()
    other[2, 1] = np.nextafter(other[2, 1], 0)
    assert not spool.are_equal_in_bits(ARRAYS["matrix"], other)
    assert not spool.are_equal_in_bits(np.array([0.0]), np.array([-0.0]))
    assert not spool.are_equal_in_bits(np.zeros(3), np.zeros(4))


def test_the_verdict_is_the_same(tmp_path, monkeypatch):
    """All findings of a file are the same with every answer on the disk and every array processed in parts."""
    from parity.onnx.proof import Artifact, Reference, judge_file
    from parity.registry import architecture
    from parity.validation import Criteria

    subject = subjects.subject("gpt2", "causal-lm")
    path = tmp_path / "model.onnx"
    subjects.artifact(subject, 17, path)
    reference = Reference(subject.fresh_model, subject.source, architecture("gpt2").relations_of("causal-lm"))
    whole = judge_file(Artifact.read(path), reference, criteria=Criteria(same_attention=False))
    monkeypatch.setattr(spool, "IN_MEMORY", 0)
    monkeypatch.setattr(spool, "BLOCK", 1000)
    parts = judge_file(Artifact.read(path), reference, criteria=Criteria(same_attention=False))
    assert whole.passed
    assert outlines(parts) == outlines(whole)
    assert parts.ratios() == pytest.approx(whole.ratios(), rel=1e-6)
    assert parts.masked == whole.masked > 0


def outlines(validation):
    """The check, subject and outcome of each finding."""
    return [(each.check, each.subject, each.where, each.passed) for each in validation.findings]


@pytest.mark.parametrize(("length", "vocabulary", "rows"), [(1024, 30522, 2), (64, 30522, 8), (4096, 96, 8)])
def test_only_large_logits_cost_rows(length, vocabulary, rows, monkeypatch):
    """A batch has fewer rows, but at least two, if its logits have more values than the judge has memory for."""
    from parity.shapes import fit_batch

    source = subjects.subject("bert", "masked-lm").source
    monkeypatch.setattr(type(source), "vocabulary", vocabulary)
    sizes = {"batch": 8, "sequence": length}
    assert fit_batch(source, sizes) == {**sizes, "batch": rows}


@pytest.mark.parametrize(("values", "rows"), [(80 * 3000, 4), (8 * 20, 8)])
def test_long_sounds_cost_rows(values, rows, monkeypatch):
    """A batch of sounds of half a minute has four rows, a batch of short sounds all."""
    from parity.shapes import fit_batch

    source = subjects.subject("whisper", "speech2seq-lm").source
    assert source.sound_of_row == 8 * 20
    monkeypatch.setattr(type(source), "sound_of_row", values)
    assert fit_batch(source, {**source.axes, "batch": 8})["batch"] == rows


def test_declared_models_keep_their_batches():
    """No tiny model, and none without logits over a vocabulary, has a smaller batch than was chosen."""
    from parity.shapes import fit_batch

    for architecture, feature in (("bert", "masked-lm"), ("bert", "default"), ("t5", "seq2seq-lm"), ("vit", "default")):
        source = subjects.subject(architecture, feature).source
        sizes = {**source.axes, "batch": 8}
        assert fit_batch(source, sizes) == sizes


SHAPE = (4, 512, 256)
ONE = 8 * SHAPE[0] * SHAPE[1] * SHAPE[2]  # bytes of a float64 answer


def large_pool(memory):
    """A pool of eight answers of half a million values each, with a backend's answers."""
    kept, generator = spool.Spool(memory), np.random.default_rng(0)
    sides = {"exact": [], "eager": [], "jittered": [], "actual": []}
    for _ in range(ratio.MINIMUM_POOL):
        exact = generator.normal(size=SHAPE)
        sides["exact"].append(kept.keep({"logits": exact}))
        for name in ("eager", "jittered", "actual"):
            moved = (exact * (1 + 1e-7 * generator.normal(size=SHAPE))).astype("float32")
            sides[name].append(kept.keep({"logits": moved}))
    return Pool.from_answers(**sides)


def judge_all(pool):
    """The checks that look at a whole pool."""
    unit = dataclasses.replace(pool, unit=pool.noise)
    return [
        *ratio.judge_ratio(unit),
        *decisions.judge_decisions(unit),
        *relations.judge_relation("batch-permutation", unit, pool.eager),
        *vacuity.judge_outputs(pool.answers),
    ]


def resident():
    """The bytes of this process in memory, files that are mapped included."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells how much of a process is in memory")
def test_one_block_of_an_array_on_disk_is_in_memory(monkeypatch):
    """The other blocks leave it when the next one is read; the control: read at once, all of it stays."""
    monkeypatch.setattr(spool, "BLOCK", 1 << 18)
    size = 1 << 26
    kept = spool.Spool(0).keep({"logits": np.ones(size // 8), "ids": np.arange(3)})
    array, before, most = kept["logits"], resident(), 0
    for (part,) in spool.blocks(array):
        assert part.sum() == part.size
        most = max(most, resident() - before)
    assert most < size / 4
    assert array.sum() == array.size
    assert resident() - before > size / 2
    spool.release(array)
    assert resident() - before < size / 4
    assert kept["ids"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("memory", [0, 10**9])
def test_judging_has_one_input_in_memory(memory, monkeypatch):
    """If a pool is on the disk, the judge holds the answers to one input at a time; the control is a pool in memory."""
    monkeypatch.setattr(spool, "BLOCK", 1 << 14)
    tracemalloc.start()
    try:
        pool = large_pool(memory)
        tracemalloc.reset_peak()
        findings = judge_all(pool)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert all(finding.passed for finding in findings)
    assert (peak < 3 * ONE) == (memory == 0)
