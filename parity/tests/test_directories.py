"""Directories of several files: merged decoders, decoders alone, Parity's own pair, towers; each fault is reported."""

import functools
import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from parity.check import main
from parity.errors import UsageError
from parity.fixtures.checkpoints import save_checkpoint, tiny_model
from parity.fixtures.controls import commands
from parity.fixtures.controls.parts import MERGED, NAMES, merge_decoders, write_part
from parity.onnx.__main__ import main as export_main
from parity.onnx.directories import find_files, groups_of

run = functools.partial(commands.run, command=main)

QUANTISED = "decoder_model_merged_quantized.onnx"
SEQ2SEQ, CAUSAL = "seq2seq-lm-with-past", "causal-lm-with-past"
# Name → architecture, feature, the parts to write, the files of them to keep, and their padding.
DIRECTORIES = {
    "encoder-and-merged": ("t5", SEQ2SEQ, ("encoder", "decoder", "step"), ("encoder", MERGED), "right"),
    "decoders": ("gpt2", CAUSAL, ("decoder", "step"), ("decoder", "step"), "left"),
    "merged": ("gpt2", CAUSAL, ("decoder", "step"), (MERGED,), "left"),
    "quantised": ("gpt2", CAUSAL, ("decoder", "step"), (QUANTISED,), "left"),
    "sound": ("whisper", "speech2seq-lm-with-past", ("encoder", "decoder", "step"), ("encoder", MERGED), ""),
    "towers": ("clip", "default", ("text", "vision"), ("text", "vision"), ""),
}


def quantise(file, target):
    """Quantise both graphs, as transformers.js does."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(file, target, weight_type=QuantType.QUInt8, extra_options={"EnableSubgraph": True})


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """A function: name of a directory → its checkpoint and its files, without metadata."""

    @functools.cache
    def make(name):
        architecture, feature, parts, kept, _ = DIRECTORIES[name]
        checkpoint, all_files, files = (tmp_path_factory.mktemp(f"{name}-{each}") for each in ("model", "all", "files"))
        save_checkpoint(checkpoint, architecture, feature)
        for part in parts:
            write_part(architecture, feature, part, all_files)
        if {MERGED, QUANTISED} & {*kept}:
            merge_decoders(all_files, all_files)
        if QUANTISED in kept:
            quantise(all_files / MERGED, all_files / QUANTISED)
        for each in kept:
            shutil.copy(all_files / NAMES.get(each, each), files)
        return checkpoint, files

    return make


def judge(checkpoint, files, *options):
    """Exit status; (file, branch) → verdict; the part of the result about running together; and the log."""
    status, out, log = run(checkpoint, files, "--json", *options)
    results = json.loads(out)["files"]
    verdicts = {
        (each["file"].rpartition("/")[2], each.get("use_cache_branch")): each for each in results if "file" in each
    }
    return status, verdicts, [each for each in results if "together" in each], log


@pytest.mark.parametrize("name", DIRECTORIES)
def test_a_right_directory_passes(build, name):
    """Each file is judged against its part of the model, and all files run together give the model's answers."""
    _, _, _, kept, padding = DIRECTORIES[name]
    status, verdicts, together, log = judge(*build(name))
    assert (status, [each["status"] for each in verdicts.values()]) == (0, ["passed"] * len(verdicts))
    assert len(verdicts) == len(kept) + bool({MERGED, QUANTISED} & {*kept})
    assert [each["graph"] for each in verdicts.values() if "graph" in each] == ["judged"] * 2 * (name == "quantised")
    assert [each["status"] for each in together] == ["passed"]
    if name == "towers":
        assert together[0]["compared"].startswith("logits_per_image at ")
    else:
        prompts = f"batch 1 and batch 3{f' padded {padding}' if padding else ''}"
        assert together[0]["compared"] == f"32 greedy tokens as generate gives them, for {prompts}"
    assert together[0]["compared"] in log


def move_weight(model, prefix=""):
    """Change one element of the last matrix of the file, or of one of its graphs."""
    matrices = [each for each in model.graph.initializer if len(each.dims) == 2 and each.data_type == 1]
    tensor = [each for each in matrices if each.name.startswith(prefix)][-1]
    values = numpy_helper.to_array(tensor).copy()
    values[1, 1] += 0.05
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def turn_softmax(model, branch=""):
    """Compute the first softmax over queries instead of keys."""
    nodes = model.graph.node
    if branch:
        nodes = next(each.g for each in nodes[0].attribute if each.name == branch).node
    next(node for node in nodes if node.op_type == "Softmax").attribute[0].i = -2


def stretch_scale(model):
    """Multiply the scale of one weight by 1.05, in the graph of the further steps."""
    body = next(each.g for each in model.graph.node[0].attribute if each.name == "then_branch")
    tensors = [*body.initializer, *model.graph.initializer]
    tensor = next(each for each in tensors if each.name.startswith("then.") and each.name.endswith("_scale"))
    values = numpy_helper.to_array(tensor) * np.float32(1.05)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def swap_branches(model):
    """Exchange the two graphs."""
    for attribute in model.graph.node[0].attribute:
        attribute.name = {"then_branch": "else_branch", "else_branch": "then_branch"}[attribute.name]


MERGED_FAULTS = {
    "then-weight": (functools.partial(move_weight, prefix="then."), {True}),
    "else-weight": (functools.partial(move_weight, prefix="else."), {False}),
    "then-graph": (functools.partial(turn_softmax, branch="then_branch"), {True}),
    "else-graph": (functools.partial(turn_softmax, branch="else_branch"), {False}),
    "swapped": (swap_branches, {True, False}),
    "then-scale": (stretch_scale, {True}),
}
# (directory, file, fault, the graphs that must fail)
FAULTS = [
    *[("merged", MERGED, name) for name in ("then-weight", "else-weight", "then-graph", "swapped")],
    ("quantised", QUANTISED, "then-scale"),
    ("quantised", QUANTISED, "else-graph"),
    ("encoder-and-merged", MERGED, "else-graph"),
    ("decoders", NAMES["decoder"], "weight"),
    ("decoders", NAMES["step"], "graph"),
    ("towers", NAMES["text"], "weight"),
    ("towers", NAMES["vision"], "weight"),
    ("towers", NAMES["vision"], "graph"),
]
EDITS = {**MERGED_FAULTS, "weight": (move_weight, {None}), "graph": (turn_softmax, {None})}


@pytest.mark.parametrize(
    ("name", "file", "fault"), FAULTS, ids=["-".join(each).replace(".onnx", "") for each in FAULTS]
)
def test_a_fault_in_one_file_or_branch_is_rejected(build, tmp_path, name, file, fault):
    """Exit status 1: the part with the fault fails, all others pass, and the files are not run together."""
    checkpoint, files = build(name)
    edit, branches = EDITS[fault]
    shutil.copytree(files, tmp_path / "spoiled")
    model = onnx.load(files / file)
    edit(model)
    onnx.save(model, tmp_path / "spoiled" / file)
    status, verdicts, together, _ = judge(checkpoint, tmp_path / "spoiled")
    failed = {place for place, verdict in verdicts.items() if verdict["status"] == "failed"}
    assert (status, failed, together) == (1, {(file, branch) for branch in branches}, [])


def test_integers_in_graphs_within_have_no_twin(build):
    """Only the chosen graph becomes the graph of the file; operators of other graphs are reported as not judged."""
    from parity.judge.branches import choose_branch
    from parity.judge.twins import Twin

    model = onnx.load(build("quantised")[1] / QUANTISED)
    assert {"DynamicQuantizeLinear", "MatMulInteger"} <= {*Twin(model).without}
    twin = Twin(choose_branch(model, switch=True))
    assert (twin.without, len(twin.rounded) > 5) == ((), True)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A checkpoint of a tiny T5, and the two files that Parity writes of it."""
    checkpoint, output = (tmp_path_factory.mktemp(name) for name in ("t5", "pair"))
    save_checkpoint(checkpoint, "t5", "seq2seq-lm")
    status, _, err = run("-m", checkpoint, f"--feature={SEQ2SEQ}", "--prefill", output, command=export_main)
    assert (status, err) == (0, "")
    return checkpoint, output


def test_our_own_pair_runs_together(pair):
    """prefill.onnx fills the cross-attention caches, and model.onnx starts from them with an empty past."""
    status, verdicts, together, log = judge(*pair)
    assert (status, {place[0] for place in verdicts}) == (0, {"prefill.onnx", "model.onnx"})
    assert together[0]["together"] == ["prefill", "model"]
    assert "Together, prefill.onnx and model.onnx: 32 greedy tokens" in log


def test_a_fault_in_our_prefill_is_rejected(pair, tmp_path):
    """One weight of the encoder moved: that file fails, and the two do not run together."""
    shutil.copytree(pair[1], tmp_path / "spoiled")
    model = onnx.load(pair[1] / "prefill.onnx")
    move_weight(model)
    onnx.save(model, tmp_path / "spoiled" / "prefill.onnx")
    status, verdicts, together, _ = judge(pair[0], tmp_path / "spoiled")
    assert (status, together) == (1, [])
    assert {place[0]: each["status"] for place, each in verdicts.items()} == {
        "prefill.onnx": "failed",
        "model.onnx": "passed",
    }


def runs_of(files, parts, shift=()):
    """Part → a function that runs its file; parts in `shift` return the logits of the previous token."""
    from parity.sessions import OnnxSession

    def wrap(part):
        session = OnnxSession(files / NAMES[part])

        def ask(inputs):
            answer = session.run(inputs)
            return {name: np.roll(array, 1, -1) if part in shift else array for name, array in answer.items()}

        return ask

    return {part: wrap(part) for part in parts}


@pytest.mark.parametrize(
    ("name", "parts"), [("decoders", ("decoder", "step")), ("towers", ("text", "vision"))], ids=["tokens", "towers"]
)
def test_files_that_are_wrong_together_are_told(build, name, parts):
    """The control of running together: if any one of the parts gives wrong answers, there is a failure."""
    from parity.fixtures.preprocessors import preprocessor
    from parity.onnx.features import constructor
    from parity.onnx.together import Together, judge_together
    from parity.registry import architecture
    from parity.samples import SampleSource

    own, feature, *_ = DIRECTORIES[name]
    _, files = build(name)

    def failed(shift, drift):
        model = tiny_model(own, feature)
        source = SampleSource(
            constructor(own, feature)(model.config), preprocessor(architecture(own).preprocessor), model.config
        )
        findings = judge_together(Together(runs_of(files, parts, shift), drift), model, source).findings
        return any(not finding.passed for finding in findings)

    # Even with the largest drift that integers may have, tokens and similarities still detect this.
    for drift in (0.0, 0.3):
        assert [failed(shift, drift) for shift in ((), *[(part,) for part in parts])] == [False, True, True]


def test_names_of_files_and_what_runs_together(tmp_path):
    """Each suffix is a variant; a merged decoder is both steps; files in a directory below are found."""
    (tmp_path / "onnx").mkdir()
    names = ["encoder_model", "decoder_model", "decoder_with_past_model", "decoder_model_merged"]
    names += ["encoder_model_quantized", "decoder_model_merged_quantized"]
    for name in names:
        (tmp_path / "onnx" / f"{name}.onnx").touch()
    files = find_files(tmp_path)
    assert [(each.part, each.branch, each.variant) for each in files] == [
        ("encoder", None, ""),
        ("decoder", None, ""),
        ("step", None, ""),
        ("decoder", False, ""),
        ("step", True, ""),
        ("encoder", None, "quantized"),
        ("decoder", False, "quantized"),
        ("step", True, "quantized"),
    ]
    groups = [[each.path.stem for each in group.values()] for group in groups_of(files)]
    assert groups == [
        ["encoder_model", "decoder_model", "decoder_with_past_model"],
        ["encoder_model", "decoder_model_merged", "decoder_model_merged"],
        ["encoder_model_quantized", "decoder_model_merged_quantized", "decoder_model_merged_quantized"],
    ]


def test_transformers_names_two_steps_otherwise(tmp_path):
    """prefill.onnx is a decoder's first step next to decode.onnx, and Parity's file next to model.onnx."""
    for name in ("prefill", "decode"):
        (tmp_path / f"{name}.onnx").touch()
    assert [each.part for each in find_files(tmp_path)] == ["decoder", "step"]
    (tmp_path / "decode.onnx").rename(tmp_path / "model.onnx")
    assert [each.part for each in find_files(tmp_path)] == ["", "prefill"]
    (tmp_path / "model.onnx").unlink()
    (tmp_path / "prefill.onnx").unlink()
    with pytest.raises(UsageError, match=r"is a directory without any of model\.onnx, encoder_model\.onnx"):
        find_files(tmp_path)
