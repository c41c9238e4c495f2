"""`parity.neuron` without the SDK: emulation and its labels, fixed shapes, coverage, tolerances, commands."""

import functools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from parity.errors import EnvironmentGap, ExportError, SessionError, ShapeMismatch, UsageError, ValueMismatch
from parity.fixtures import subjects
from parity.fixtures.checkpoints import save_checkpoint
from parity.fixtures.controls import commands
from parity.neuron.__main__ import main

ROOT = Path(__file__).parents[2]
SDPA = "scaled_dot_product_attention"
DEPRECATED = pytest.mark.filterwarnings("ignore:.*is deprecated:DeprecationWarning")  # torch >= 2.9 on TorchScript


@pytest.fixture(scope="module")
def bert():
    return subjects.subject("bert", "masked-lm")


def trace_subject(subject, length=16, **options):
    """The subject emulated at batch 2 and that length, and the lines of its log."""
    from parity import neuron

    lines = []
    inputs = subject.source.resize({"batch": 2, "sequence": length}).inputs
    options = {"onnx_config": subject.onnx_config, "emulate": True, "say": lines.append, **options}
    return neuron.trace(subject.model, inputs, **options), lines


@pytest.fixture(scope="module")
def emulation(bert):
    return trace_subject(bert)


def test_without_the_sdk_the_gate_speaks(bert):
    """Compiling raises the gate's sentence; nothing falls back to an emulation."""
    with pytest.raises(EnvironmentGap, match="is not installed"):
        trace_subject(bert, emulate=False)


def test_an_emulation_says_so_in_every_line(emulation):
    """Each line begins with it, also in proof and file, and no node counts as compiled."""
    model, lines = emulation
    assert lines
    assert all(line.startswith("emulation: ") for line in lines)
    assert model.proof.startswith("emulation: ")
    assert model.facts()["neuron"]["engine"] == model.engine == "emulation"
    assert (model.compiled, model.sdk) == (0, "")


def test_an_emulated_file_is_read_back(bert, tmp_path):
    """Saved and loaded it is still an emulation; a plain trace is not."""
    from parity import neuron
    from parity.torchscript import export

    trace_subject(bert, output=tmp_path / "model.pt")
    assert neuron.load(tmp_path / "model.pt").engine == "emulation"
    export(bert.model, bert.source.dummy, tmp_path / "plain.pt", prove=False)
    with pytest.raises(SessionError, match="is a trace, not compiled for Neuron"):
        neuron.load(tmp_path / "plain.pt")


def test_shapes_are_fixed(emulation):
    """Another length or batch is refused by name; with a dynamic batch only the length is fixed."""
    model, _ = emulation
    longer = [tensor.repeat(1, 2) for tensor in model.example.values()]
    taller = [tensor.repeat(2, 1) for tensor in model.example.values()]
    for tensors in (longer, taller):
        with pytest.raises(UsageError, match=r"input_ids has shape .*, compiled for \(2, 16\).*shapes are fixed"):
            model(*tensors)


def test_a_dynamic_batch(bert):
    """Any batch runs, another length does not."""
    model, _ = trace_subject(bert, dynamic_batch_size=True)
    tensors = list(model.example.values())
    assert model(*[tensor.repeat(3, 1) for tensor in tensors])[0].shape[:2] == (6, 16)
    with pytest.raises(UsageError, match="but for the first axis"):
        model(*[tensor.repeat(1, 2) for tensor in tensors])


def test_buckets_answer_shorter_requests(bert):
    """A request is padded to the smallest compiled length, and answered like by unpadded PyTorch."""
    from parity.neuron import Runner, Tolerances
    from parity.neuron.tolerances import judge_answers, require
    from parity.reference import answers

    runner = Runner(trace_subject(bert, 8)[0], trace_subject(bert, 16)[0], axes=("batch", "sequence"))
    asked = [bert.source.resize({"batch": 1, "sequence": length}, seed=length) for length in (5, 8, 13)]
    expected = [answer.eager for answer in answers(bert.fresh_model(), bert.onnx_config, asked, exact=False)]
    actual = [{name: tensor.numpy() for name, tensor in runner(sample.inputs).items()} for sample in asked]
    require(judge_answers(expected, actual, Tolerances.emulated()))
    with pytest.raises(UsageError, match="is longer than what was traced"):
        runner(bert.source.resize({"batch": 1, "sequence": 17}).inputs)


def test_keywords_that_no_tracer_has_are_refused(bert):
    """A misspelt keyword is named, with the valid ones."""
    with pytest.raises(UsageError, match=r"options: compiler_arg: torch_neuron[.]trace has compiler_args, "):
        trace_subject(bert, compiler_arg=[])
    with pytest.raises(UsageError, match="package: got torch_xla, should be one of torch_neuron, torch_neuronx"):
        trace_subject(bert, package="torch_xla")


def test_a_wrong_answer_is_refused(bert, monkeypatch):
    """An emulation whose answers have a reversed batch is not delivered."""
    from parity.neuron import tracing

    right = tracing.NeuronModel.__call__
    monkeypatch.setattr(tracing.NeuronModel, "__call__", lambda self, *t: tuple(o.flip(0) for o in right(self, *t)))
    with pytest.raises(ValueMismatch, match="logits: relative error"):
        trace_subject(bert)


EXPECTED = [{"logits": np.array([[0.1, 2.0, -1.0], [3.0, 0.0, 0.5]], np.float32)}]


def judge(actual, **limits):
    """The checks that fail on that answer."""
    from parity.neuron import Tolerances
    from parity.neuron.tolerances import judge_answers

    return [row.check for row in judge_answers(EXPECTED, [{"logits": actual}], Tolerances(**limits)) if not row.passed]


def test_tolerances_take_what_bfloat16_costs():
    """A thousandth of noise passes; a tenth, another sign, another winner, NaN and another shape do not."""
    right = EXPECTED[0]["logits"]
    assert judge(right * 1.001) == []
    assert judge(right * 1.1) == ["values"]
    assert judge(-right) == ["values"]
    assert judge(np.where(right == 2.0, np.nan, right)) == ["values"]
    assert judge(right[:1]) == ["shape"]
    assert judge(right[:, ::-1].copy(), relative=9.0, cosine=-1.0) == []
    from parity.neuron import Tolerances
    from parity.neuron.tolerances import judge_answers

    assert [row.check for row in judge_answers(EXPECTED, [{}], Tolerances())] == ["names"]


def test_decisions_are_held_to_the_noise():
    """Candidates that change places are a failure only if they are further apart than the noise."""
    from parity.neuron import Tolerances
    from parity.neuron.tolerances import judge_answers

    reference = [{"logits": np.concatenate([np.full((1, 400), 5.0), [[0.0, 1.0, 0.9, 1.02]]], 1).astype(np.float32)}]
    near = reference[0]["logits"].copy()
    near[0, -2] = 1.01
    assert [row for row in judge_answers(reference, [{"logits": near}], Tolerances()) if not row.passed] == []
    wide = {"logits": np.array([[9.0, 8.0, 0.0, 0.0]], np.float32)}
    swapped = {"logits": np.array([[8.4, 8.6, 0.0, 0.0]], np.float32)}
    failed = [row.check for row in judge_answers([wide], [swapped], Tolerances(relative=0.08)) if not row.passed]
    assert failed == ["decision"]


def test_limits_are_called_uncalibrated_until_a_device_has_run(tmp_path):
    """Without a file, or for an architecture not in it, they are uncalibrated; otherwise twice the measured error."""
    from parity.neuron import Tolerances
    from parity.neuron.tolerances import calibration

    path = tmp_path / "calibration.json"
    assert "uncalibrated" in Tolerances.calibrated(path, "bert").origin
    figures = [{"relative": 0.01, "cosine": 0.9999}, {"relative": 0.004, "cosine": 0.9998}]
    path.write_text(json.dumps(calibration({"bert": figures}, "torch-neuron 1.13.1")))
    found = Tolerances.calibrated(path, "bert")
    assert (found.relative, round(found.cosine, 6)) == (0.02, 0.9996)
    assert found.origin == "calibrated on torch-neuron 1.13.1"
    assert "uncalibrated" in Tolerances.calibrated(path, "vit").origin


def test_a_summary_takes_the_old_name_of_its_argument():
    """Users may pass `rows`; either name gives the same line."""
    from parity.neuron import Tolerances
    from parity.neuron.tolerances import judge_answers

    findings = judge_answers(EXPECTED, [{"logits": EXPECTED[0]["logits"] + 0.01}], Tolerances())
    assert Tolerances().summary(rows=findings) == Tolerances().summary(findings) != Tolerances().summary([])


def test_only_a_device_calibrates(tmp_path):
    """The first run that passes on a device writes the file; an emulation writes none, and later runs keep it."""
    from types import SimpleNamespace

    from parity.aws import DEVICE, Neuron
    from parity.fixtures.neuron import _Calibration

    def run(runtime, relative):
        recorder = _Calibration(tmp_path / "calibration.json", Neuron(DEVICE, "a device", 1))
        measurements = {"neuron": {"outputs": {"logits": {"relative": relative, "cosine": 0.999}}}}
        properties = [("cell", {"runtime": runtime, "architecture": "bert"}), ("measurements", measurements)]
        recorder.pytest_runtest_logreport(SimpleNamespace(when="call", passed=True, user_properties=properties))
        recorder.pytest_sessionfinish()
        return (tmp_path / "calibration.json").exists()

    assert not run("emulation", 0.0)
    assert run("neuron", 0.01)
    run("neuron", 0.02)
    assert json.loads((tmp_path / "calibration.json").read_text())["architectures"]["bert"]["relative"] == 0.01


@DEPRECATED
def test_coverage_tells_what_the_list_lacks():
    """Embeddings, sdpa and in-place forms are left to the CPU, listed operators are not; `where` has a condition."""
    import torch

    from parity.neuron import coverage

    table = torch.randn(4, 8)

    def graph(ids, x):
        y = torch.where(x > 0, x, x.mean()) + torch.nn.functional.embedding(ids, table)
        y = (
            torch.nn.functional.scaled_dot_product_attention(y, y, y)
            if hasattr(torch.nn.functional, SDPA)
            else y.erfinv()
        )
        return y.clone().mul_(2.0)

    report = coverage(torch.jit.trace(graph, (torch.zeros(2, 3, dtype=torch.long), torch.randn(2, 3, 8))))
    missing = f"aten::{SDPA}" if hasattr(torch.nn.functional, SDPA) else "aten::erfinv"
    assert report.outside == dict.fromkeys(sorted(["aten::embedding", missing, "aten::mul_"]), 1)
    assert report.limited == {"aten::where": 1}
    assert {"aten::add", "aten::gt", "aten::mean", "aten::clone"} <= set(report.inside)
    assert report.share == 1 - 3 / report.total
    assert any("left to the CPU: aten::embedding, 1 times" in line for line in report.lines())


@DEPRECATED
def test_coverage_looks_into_branches():
    """Operators inside a scripted condition are counted; Neuron does not compile the condition itself."""
    import torch

    from parity.neuron import coverage

    class Branch(torch.nn.Module):
        def forward(self, x):
            if bool(x.sum() > 0):
                x = torch.erfinv(x)
            return x

    found = coverage(torch.jit.script(Branch()))
    assert {"aten::erfinv", "prim::If"} <= set(found.outside)


def test_the_list_is_aws_own():
    """Without operators that AWS removed for good, with those that it restored; conditions are listed separately."""
    from parity.neuron.operators import LIMITED, SOURCE, SUPPORTED

    assert "aten::embedding" not in SUPPORTED
    assert {"aten::erf", "aten::clamp_min", "aten::baddbmm"} <= SUPPORTED
    assert not SUPPORTED & set(LIMITED)
    assert "AWS Neuron documentation" in SOURCE


def test_what_the_list_does_not_foresee_is_named(emulation):
    """A listed operator outside compiled code is a fallback, and so is anything if nothing was compiled."""
    from dataclasses import replace

    from parity.fixtures.neuron_checks import unexpected_fallbacks
    from parity.neuron.operators import Coverage

    model, coverage = emulation[0], Coverage({}, {}, {"aten::cumsum": 1})
    outside = {"aten::embedding": 3, "aten::cumsum": 1}
    foreseen = replace(model, engine="neuron", compiled=1, outside=outside)
    assert unexpected_fallbacks(foreseen, coverage) == []
    assert unexpected_fallbacks(replace(foreseen, outside={**outside, "aten::linear": 1}), coverage) == ["aten::linear"]
    assert unexpected_fallbacks(replace(foreseen, compiled=0), coverage) == sorted(outside)


def test_generation_refuses_what_was_not_compiled():
    """More rows or tokens than compiled, and a model without an encoder, are refused by name."""
    from parity.neuron.generation import compile_generator

    subject = subjects.subject("marian", "seq2seq-lm")
    generator = compile_generator(subject.model, batch=1, length=12, decoder_length=8, emulate=True)
    inputs = subject.source.resize({"batch": 2, "encoder_sequence": 6}).inputs
    with pytest.raises(UsageError, match="input_ids: has 2 rows of 6 tokens, compiled for 1 of 12"):
        generator(inputs["input_ids"], inputs["attention_mask"], max_length=8)
    with pytest.raises(UsageError, match="is no encoder-decoder"):
        compile_generator(subjects.subject("bert", "masked-lm").model, emulate=True)


def test_a_generator_is_read_back(tmp_path):
    """Two files are enough to generate the tokens of the model; without the mask, the tokens differ."""
    import torch

    from parity.neuron import Generator
    from parity.neuron.generation import compile_generator

    subject = subjects.subject("marian", "seq2seq-lm")
    compile_generator(subject.model, tmp_path, batch=3, length=12, decoder_length=12, emulate=True)
    generator = Generator.load(subject.model, tmp_path)
    inputs = subject.source.resize({"batch": 3, "encoder_sequence": 10}, padding="right", seed=3).inputs
    text = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    options = {"max_length": 12, "no_repeat_ngram_size": 1}
    with torch.no_grad():
        reference = subject.fresh_model().generate(**text, do_sample=False, **options)
    assert generator(**text, **options).tolist() == reference.tolist()
    unmasked = {**text, "attention_mask": torch.ones_like(text["attention_mask"])}
    assert generator(**unmasked, **options).tolist() != reference.tolist()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    directory = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(directory, "bert", "token-classification")
    return directory


run = functools.partial(commands.run, command=main)


def test_the_command_needs_the_sdk(checkpoint, tmp_path):
    """Without it, exit status 1 and the gate's sentence, before the model is loaded; nothing is written."""
    status, out, err = run("-m", checkpoint, tmp_path / "out")
    assert (status, out) == (1, "")
    assert "is not installed; docs/neuron.md of the repository has the order of installation" in err
    assert not (tmp_path / "out").exists()


def test_the_command_emulates_and_says_so(checkpoint, tmp_path):
    """Every line is labelled, and the JSON does not say passed."""
    options = ("--feature", "token-classification", "--emulate", "--sequence-length", "16")
    status, out, _ = run("-m", checkpoint, *options, tmp_path / "out")
    assert status == 0
    assert all(line.startswith("emulation: ") for line in out.splitlines())
    assert (tmp_path / "out" / "tokenizer.json").exists()
    status, out, _ = run("-m", checkpoint, *options, "--json", tmp_path / "other.pt")
    found = json.loads(out)
    assert (status, found["status"], found["engine"]) == (0, "emulation", "emulation")


def test_the_command_tells_coverage_without_the_sdk(checkpoint):
    """Before renting a host: the operators left to the CPU, and the source of the list."""
    status, out, _ = run("-m", checkpoint, "--feature", "token-classification", "--coverage")
    assert status == 0
    assert (
        "operators are on the list (AWS Neuron documentation" in out.splitlines()[-2 - out.count("compiled with")]
        or out
    )
    assert "left to the CPU: aten::embedding, 3 times" in out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            ("--emulate", "--sequence-length", "41", "out"),
            "--sequence-length: got 41, the model takes at most 40 tokens",
        ),
        (("--emulate", "--buckets", "16,0", "out"), "got 0, should be a whole number from 1 to 1000000"),
        (("--emulate",), "the following arguments are required: output"),
    ],
)
def test_wrong_usage_is_told(checkpoint, monkeypatch, tmp_path, options, says):
    """Exit status 2 and one message."""
    monkeypatch.chdir(tmp_path)
    status, _, err = run("-m", checkpoint, "--feature", "token-classification", *options)
    assert status == 2
    assert says in err


BLOCKED = "import sys; sys.modules.update(dict.fromkeys(['onnx', 'onnxruntime', 'onnxscript']))\n"


def test_without_onnx(checkpoint, tmp_path):
    """Without onnx and onnxruntime the library compiles and judges: they refuse the packages that neuron-cc pins."""
    code = f"{BLOCKED}from parity.neuron.__main__ import main; sys.exit(main(sys.argv[1:]))"
    options = ["--feature", "token-classification", "--emulate", "--sequence-length", "16", str(tmp_path / "out")]
    process = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, "-m", str(checkpoint), *options], capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr
    assert "emulation: At the compiled shape: relative error" in process.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("-m", "inf1"), 0, "384 skipped"),
        (("-m", "inf1", "--neuron-emulate"), 5, "deselected"),
        (("--neuron-emulate", "-k", "bert-default-neuron-b1-l16 and not albert and not rem"), 0, "passed"),
        (("-m", "inf1", "--require", "neuron"), 4, "--require neuron: the AWS Neuron SDK"),
        (("--neuron-emulate", "--require", "neuron"), 4, "an emulation is no device; give one of them"),
    ],
)
def test_the_suite_without_onnx_and_without_a_device(tmp_path, arguments, status, says):
    """`-m inf1` only skips, `--require neuron` is an error, and an emulation never counts as Inf1; onnx is missing."""
    code = f"{BLOCKED}import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    options = ["-q", "-p", "no:cacheprovider", "-n", "0", f"--records={tmp_path / 'records.jsonl'}"]
    process = subprocess.run(
        [sys.executable, "-c", code, *options, "architectures/conformance/test_neuron.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (process.returncode, says in process.stdout + process.stderr) == (status, True), (
        process.stdout[-3000:] + process.stderr
    )
    if status == 0:
        lines = [json.loads(line) for line in (tmp_path / "records.jsonl").read_text().splitlines()][1:]
        emulated = "--neuron-emulate" in arguments
        assert {line["runtime"] for line in lines} == {"emulation" if emulated else "neuron"}
        assert {line["status"] for line in lines} == {"passed" if emulated else "skipped"}
        assert all(line["id"].endswith("-emulation") == emulated for line in lines)


def test_export_errors_of_an_emulation_are_labelled(bert, monkeypatch):
    """A failure in torch.jit.trace is not attributed to Neuron."""
    import torch

    def fail(*arguments, **options):
        raise RuntimeError("no such thing")

    monkeypatch.setattr(torch.jit, "trace", fail)
    with pytest.raises(ExportError, match=r"torch.jit.trace \(emulation\) failed: RuntimeError: no such thing"):
        trace_subject(bert)


def test_another_shape_of_an_answer_is_refused():
    """The first failure decides the class of the error."""
    from parity.neuron import Tolerances
    from parity.neuron.tolerances import judge_answers, require

    with pytest.raises(ShapeMismatch, match=r"logits: has shape \(1, 3\), should be \(2, 3\)"):
        require(judge_answers(EXPECTED, [{"logits": EXPECTED[0]["logits"][:1]}], Tolerances()))


def test_the_same_door_leads_to_inf2(bert, monkeypatch):
    """If torch_neuronx is installed, it gets its own keywords; a dynamic batch is a separate call."""
    import types

    import torch

    from parity import aws
    from parity.neuron import sdk

    calls = []

    def compile_module(module, tensors, **options):
        calls.append(("trace", type(tensors), options))
        return torch.jit.trace(module, tensors, check_trace=False)

    fake = types.SimpleNamespace(
        trace=compile_module, dynamic_batch=lambda model: calls.append("dynamic_batch") or model
    )
    answers = {
        "torch_neuron": aws.Neuron(aws.ABSENT, "absent, in this test"),
        "torch_neuronx": aws.Neuron(aws.NO_DEVICE, "no device, in this test"),
    }
    monkeypatch.setitem(sys.modules, "torch_neuronx", fake)
    monkeypatch.setattr(aws, "neuron", lambda package="torch_neuron": answers[package])
    assert sdk.default_package() == "torch_neuronx"
    options = {"compiler_workdir": "work", "dynamic_batch_size": True}
    model, lines = trace_subject(bert, emulate=False, allow_fallback=True, **options)
    assert calls == [("trace", tuple, {"compiler_workdir": "work"}), "dynamic_batch"]
    assert (model.package, model.engine, model.dynamic_batch, model.proof) == ("torch_neuronx", "neuron", True, "")
    assert any(line.startswith("warning: nothing was compiled") for line in lines)
    with pytest.raises(UsageError, match="options: fallback: torch_neuronx"):
        trace_subject(bert, emulate=False, fallback=False)
