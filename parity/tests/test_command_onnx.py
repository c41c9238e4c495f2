"""`python -m parity.onnx` on good input: what it prints, writes and reads."""

import functools
import io
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from parity import cli
from parity.environment import version_of
from parity.fixtures.checkpoints import save_checkpoint
from parity.fixtures.controls import commands
from parity.fixtures.processes import cost_of, times_bare
from parity.judge.findings import Finding
from parity.onnx.__main__ import main

# Checkpoint (architecture, feature, safetensors) → output in the log, its shape at the export, default opset.
EXPORTS = {
    ("bert", "default", True): ("last_hidden_state", "(2, 8, 32)", 11),
    ("bert", "default", False): ("last_hidden_state", "(2, 8, 32)", 11),
    ("distilbert", "sequence-classification", True): ("logits", "(2, 2)", 11),
    ("gpt2", "causal-lm-with-past", True): ("logits", "(2, 8, 96)", 13),
    ("t5", "seq2seq-lm", True): ("logits", "(2, 8, 96)", 13),
    ("vit", "image-classification", True): ("logits", "(2, 2)", 11),
    ("resnet", "default", True): ("last_hidden_state", "(2, 24, 2, 2)", 11),
}
IDS = ["bert", "bert-bin", "distilbert", "gpt2-with-past", "t5", "vit", "resnet"]
BERT = ("bert", "default", True)


run = functools.partial(commands.run, command=main)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Architecture, feature, safetensors → the directory of a tiny checkpoint."""

    @functools.cache
    def save(model_type, feature, safe):
        directory = tmp_path_factory.mktemp(model_type)
        save_checkpoint(directory, model_type, feature, safe=safe)
        return directory

    return save


@pytest.fixture(scope="module")
def exports(checkpoint, tmp_path_factory):
    """Architecture, feature, safetensors → the output directory and the log of its export."""

    @functools.cache
    def export_once(model_type, feature, safe):
        output = tmp_path_factory.mktemp("exported") / "onnx"
        status, log, _ = run("-m", checkpoint(model_type, feature, safe), "--feature", feature, output)
        assert status == 0
        return output, log

    return export_once


def metadata(file):
    return {entry.key: entry.value for entry in onnx.load(str(file)).metadata_props}


def opset(file):
    return onnx.load(str(file)).opset_import[0].version


@pytest.mark.parametrize("case", EXPORTS, ids=IDS)
def test_log_is_that_of_the_document(exports, case):
    """The lines in the document appear verbatim and in order, with their indentation."""
    name, shape, _ = EXPORTS[case]
    output, log = exports(*case)
    lines = log.splitlines()
    limit = {"vit": "0.0001", "resnet": "0.001"}.get(case[0], "1e-05")
    outputs = re.search(r"\(\{'(.*)'\}\)", log).group(1).split("', '")
    document = [
        "Validating ONNX model...",
        "        -[✓] ONNX model output names match reference model ({'" + "', '".join(outputs) + "'})",
        f'        - Validating ONNX Model output "{name}":',
        f"                -[✓] {shape} matches {shape}",
        f"                -[✓] all values close (atol: {limit})",
    ]
    assert lines[1:6] == document
    assert lines[-1] == f"All good, model saved at: {output.as_posix()}/model.onnx"
    assert outputs[0] == name


@pytest.mark.parametrize("case", EXPORTS, ids=IDS)
def test_opset_attention_and_feature_are_told(exports, case):
    """The first line has the feature, the opset of the file, and the attention implementation."""
    output, log = exports(*case)
    delivered = opset(output / "model.onnx")
    assert log.splitlines()[0].endswith(f": feature {case[1]}, opset {delivered}, attention eager")


@pytest.mark.parametrize("case", EXPORTS, ids=IDS)
def test_default_opset_is_the_configurations(exports, case):
    """Without --opset the file has the configuration's default_onnx_opset."""
    assert opset(exports(*case)[0] / "model.onnx") == EXPORTS[case][2]


@pytest.mark.parametrize("case", EXPORTS, ids=IDS)
def test_error_ratio_is_told_for_every_output(exports, case):
    """Each output has a line with its error ratio and its largest difference."""
    log = exports(*case)[1]
    ratios = re.findall(r"-\[✓\] error ratio (\d\.\d\d) ≤ 4; largest difference \d", log)
    assert len(ratios) == log.count("Validating ONNX Model output")
    assert all(0 < float(ratio) <= 4 for ratio in ratios)


@pytest.mark.parametrize(
    "shape",
    [
        "batch 1 × sequence 7",
        "batch 3 × sequence 1",
        "batch 1 × sequence 1",
        "batch 2 × sequence 31",
        "batch 3 × sequence 9, padded left",
        "batch 3 × sequence 12, padded right",
    ],
)
def test_every_validated_shape_is_told(exports, shape):
    """Batch 1 and 3, sequence 1, a longer one, padding left and right: each shape has its line."""
    log = exports(*BERT)[1]
    assert re.search(rf"^ {{16}}-\[✓\] {shape}: largest difference \S+$", log, re.MULTILINE)


@pytest.mark.parametrize("case", EXPORTS, ids=IDS)
def test_number_of_shapes_is_the_number_of_lines(exports, case):
    """`Validated at N shapes` is followed by N different lines."""
    head, _, tail = exports(*case)[1].partition("- Validated at ")
    shapes = re.findall(r"-\[✓\] (.*): largest", tail)
    assert int(tail.split()[0]) == len(shapes) == len(set(shapes)) >= 3
    assert head


def lines(*arguments, **options):
    from parity.onnx.log import validation_lines

    return validation_lines(*arguments, **options)


def made_up(worst, ratio=0.98, shapes=("batch 2",)):
    """A validation of one output with that largest difference and, unless None, that error ratio."""
    from parity.samples import Sample
    from parity.validation import Validation

    samples = [Sample({"batch": int(shape.split()[1])}, "", {}) for shape in shapes]
    rows = [Finding("values", "logits", True, where=str(sample), measurements={"worst": worst}) for sample in samples]
    if ratio is not None:
        rows.append(Finding("ratio", "logits", True, measurements={"ratio": ratio, "worst": worst}))
    return Validation(samples, {"logits": (2, 2)}, rows)


def test_ratio_that_passes_above_the_expected_atol_is_not_called_close():
    """Above atol_for_validation the line has the ratio and the difference, never `all values close`."""
    log = lines(made_up(6.7e-5), atol=None, expected_atol=1e-5)
    sentence = "all values within the error ratio (0.98 ≤ 4); largest difference 6.7e-05, above atol 1e-05"
    assert f"                -[✓] {sentence}" in log
    assert "all values close" not in "\n".join(log)


def test_high_ratio_is_worth_a_look():
    """A ratio above 2 passes with a note."""
    assert "error ratio 2.50 ≤ 4 (above 2: worth a look)" in "\n".join(lines(made_up(1e-6, 2.5), atol=None))


def test_output_that_no_ratio_judged_is_not_ticked():
    """An output above atol without a pooled ratio gets a line that says so."""
    log = lines(made_up(6.7e-5, None), atol=None, expected_atol=1e-5)
    assert any(line.strip().startswith("-[x] largest difference 6.7e-05, above atol 1e-05") for line in log)


def test_atol_is_a_hard_limit(checkpoint, tmp_path):
    """An --atol that float32 cannot meet gives exit status 1 although the ratio passes, and no model.onnx."""
    status, _, err = run("-m", checkpoint(*BERT), "--atol", "1e-12", "--quiet", tmp_path)
    assert status == 1
    assert "last_hidden_state" in err
    assert "by more than 1e-12" in err
    assert [path.name for path in tmp_path.iterdir()] == ["model.rejected.onnx"]


def test_atol_that_is_met_is_told(checkpoint, tmp_path):
    """With --atol the log has that limit, not the configuration's."""
    status, log, _ = run("-m", checkpoint(*BERT), "--atol", "2e-5", tmp_path)
    assert status == 0
    assert "-[✓] all values close (atol: 2e-05)" in log


def test_quiet_says_nothing(checkpoint, tmp_path, capfd):
    """--quiet leaves both streams empty and still writes the file."""
    assert main(["-m", str(checkpoint(*BERT)), "--quiet", str(tmp_path)]) == 0
    assert capfd.readouterr() == ("", "")
    assert (tmp_path / "model.onnx").is_file()


def test_json_is_one_object_on_standard_output(checkpoint, tmp_path):
    """--json prints only one object on standard output; the log goes to standard error."""
    status, out, err = run("-m", checkpoint(*BERT), "--json", tmp_path)
    result = json.loads(out)
    assert status == 0
    assert result["status"] == "passed"
    assert result["failures"] == []
    assert Path(result["model"]) == tmp_path / "model.onnx"
    assert (result["architecture"], result["feature"], result["opset"]) == ("bert", "default", 11)
    assert {"checkpoint", "fingerprint", "attention", "atol", "seconds", "environment"} <= set(result)
    assert len(result["validated_at"]) >= 8
    assert set(result["outputs"]["last_hidden_state"]) == {"shape", "worst", "ratio"}
    assert "All good, model saved at" in err


class Terminal(io.StringIO):
    """A standard error that is a terminal."""

    def isatty(self):
        return True


def test_long_work_shows_progress_on_a_terminal(checkpoint, tmp_path, monkeypatch):
    """On a terminal standard error names each stage, and the last one is erased."""
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert main(["-m", str(checkpoint(*BERT)), str(tmp_path)]) == 0
    progress = sys.stderr.getvalue()
    assert "exporting to opset 11" in progress
    assert "ONNX Runtime at batch 3 × sequence 1" in progress
    assert progress.endswith("\r\x1b[K")


@pytest.mark.parametrize(("output", "file"), [("a/b", "a/b/model.onnx"), ("a/b.onnx", "a/b.onnx")])
def test_output_is_a_directory_or_a_file(checkpoint, tmp_path, output, file):
    """A directory gets model.onnx, a path ending in .onnx is the file itself; missing directories are created."""
    status, log, _ = run("-m", checkpoint(*BERT), tmp_path / output)
    assert status == 0
    assert (tmp_path / file).is_file()
    assert log.splitlines()[-1] == f"All good, model saved at: {(tmp_path / file).as_posix()}"


def test_opset_is_the_one_asked_for(checkpoint, tmp_path):
    """Log, metadata and file have the opset of --opset."""
    log = run("-m", checkpoint(*BERT), "--opset", "17", tmp_path)[1]
    assert "opset 17" in log.splitlines()[0]
    assert opset(tmp_path / "model.onnx") == 17
    assert metadata(tmp_path / "model.onnx")["opset"] == "17"


@pytest.mark.parametrize("case", EXPORTS, ids=IDS)
def test_file_is_well_formed(exports, case):
    """onnx.checker accepts the delivered file, as in the document."""
    onnx.checker.check_model(onnx.load(str(exports(*case)[0] / "model.onnx")), full_check=True)


@pytest.mark.parametrize("case", EXPORTS, ids=IDS)
def test_metadata_names_origin(exports, case):
    """The file names versions, checkpoint, feature and opset."""
    entries = metadata(exports(*case)[0] / "model.onnx")
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", entries.pop("checkpoint"))
    assert entries == {
        "parity": version_of("parity"),
        "torch": version_of("torch"),
        "transformers": version_of("transformers"),
        "model_type": case[0],
        "feature": case[1],
        "opset": str(EXPORTS[case][2]),
        "attention": "eager",
    }


def test_other_weights_have_another_hash(exports):
    """The hashes of two checkpoints differ."""
    hashes = {metadata(exports(*case)[0] / "model.onnx")["checkpoint"] for case in EXPORTS}
    assert len(hashes) == len(EXPORTS)


@pytest.mark.parametrize("case", [BERT, ("t5", "seq2seq-lm", True), ("resnet", "default", True)], ids=lambda w: w[0])
def test_equal_inputs_give_identical_files(checkpoint, exports, tmp_path, case):
    """A second run writes the same bytes into every file."""
    assert run("-m", checkpoint(*case), "--feature", case[1], tmp_path)[0] == 0
    first, second = ({p.name: p.read_bytes() for p in d.iterdir()} for d in (exports(*case)[0], tmp_path))
    assert first == second


def test_document_example_runs_from_a_copy_alone(exports, tmp_path):
    """Tokenizer and session load from a copy of the output directory, and give the model's hidden states."""
    from transformers import AutoTokenizer

    copy = shutil.copytree(exports(*BERT)[0], tmp_path / "alone")
    tokenizer = AutoTokenizer.from_pretrained(copy)
    session = onnxruntime.InferenceSession(str(copy / "model.onnx"))
    inputs = tokenizer("w10 w11 w12 w13", return_tensors="np")
    outputs = session.run(output_names=["last_hidden_state"], input_feed=dict(inputs))
    np.testing.assert_allclose(outputs[0], hidden_states(inputs), atol=1e-5)


def hidden_states(inputs):
    """The answer of the model that the bert checkpoint was saved from."""
    import torch

    from parity.fixtures.checkpoints import tiny_model

    with torch.no_grad():
        arguments = {name: torch.tensor(array) for name, array in inputs.items()}
        return tiny_model("bert")(**arguments).last_hidden_state.numpy()


@pytest.mark.parametrize("case", EXPORTS, ids=IDS)
def test_directory_names_no_other_place(checkpoint, exports, case):
    """Configuration and preprocessor are next to the model, and no file mentions the checkpoint's directory."""
    files = {path.name: path.read_bytes() for path in exports(*case)[0].iterdir()}
    assert {"model.onnx", "config.json"} < set(files)
    assert {"tokenizer.json", "preprocessor_config.json"} & set(files)
    assert not [name for name, content in files.items() if str(checkpoint(*case)).encode() in content]


def test_parity_onnx_is_the_same_command(checkpoint, exports, tmp_path):
    """`parity onnx …` writes the file that `python -m parity.onnx …` writes."""
    status, log, _ = run("onnx", "-m", checkpoint(*BERT), tmp_path, command=cli.main)
    assert (status, log.splitlines()[1]) == (0, "Validating ONNX model...")
    assert (tmp_path / "model.onnx").read_bytes() == (exports(*BERT)[0] / "model.onnx").read_bytes()


@pytest.mark.parametrize(
    "command",
    [[sys.executable, "-m", "parity.onnx"], [str(Path(sys.executable).with_name("parity")), "onnx"]],
    ids=["module", "script"],
)
def test_help_answers_at_once(command):
    """--help costs a few times as much as a bare interpreter (torch alone: a hundred times)."""
    process, times = times_bare([*command, "--help"])
    assert times < 20
    usage = " ".join(process.stdout.split())
    assert re.search(r"-m MODEL.*\[--feature NAME\].*\[--opset OPSET\].*\[--atol ATOL\].*output", usage)


def test_help_imports_neither_torch_nor_transformers():
    """--help loads none of the packages that take seconds."""
    process, _ = cost_of([sys.executable, "-X", "importtime", "-m", "parity.onnx", "--help"])
    loaded = {line.rpartition("|")[2].strip() for line in process.stderr.splitlines()}
    assert "parity.console" in loaded
    assert not loaded & {"torch", "transformers", "onnx", "onnxruntime", "numpy"}
