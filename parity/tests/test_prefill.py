"""The second file of an encoder-decoder: delivered together with the first, and judged the same way."""

import json

import pytest

from parity.check import main as check
from parity.fixtures import decoding_checks, subjects
from parity.fixtures.checkpoints import earlier_export, save_checkpoint
from parity.fixtures.controls import commands
from parity.judge import contract
from parity.onnx.__main__ import main
from parity.sessions import OnnxSession


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    directory = tmp_path_factory.mktemp("t5")
    save_checkpoint(directory, "t5", "seq2seq-lm")
    return directory


def run(checkpoint, output, *options):
    """An export with caches; returns exit status, standard output and standard error."""
    arguments = (f"--model={checkpoint}", "--feature=seq2seq-lm-with-past", "--json", *options, output)
    return commands.run(*arguments, command=main)


def test_both_files_are_delivered(checkpoint, tmp_path):
    """--prefill writes prefill.onnx next to model.onnx: encoder inputs → every cross-attention cache."""
    status, out, _ = run(checkpoint, tmp_path, "--prefill")
    assert status == 0
    summary = json.loads(out)
    assert (summary["status"], summary["prefill"]["status"]) == ("passed", "passed")
    assert len(summary["prefill"]["validated_at"]) >= 8
    first, second = contract.read(tmp_path / "prefill.onnx"), contract.read(tmp_path / "model.onnx")
    assert [value.name for value in first.inputs] == ["input_ids", "attention_mask"]
    cross = [v.name for v in second.inputs if ".encoder." in v.name]
    assert [value.name.replace("present", "past_key_values") for value in first.outputs] == cross
    assert len(cross) == 2 * 3
    assert first.opset == second.opset == 13


def test_without_the_option_there_is_one_file(checkpoint, tmp_path):
    """The files are those of transformers.onnx."""
    assert run(checkpoint, tmp_path)[0] == 0
    assert not (tmp_path / "prefill.onnx").exists()


def test_parity_check_judges_a_prefill_file(checkpoint, tmp_path, capsys):
    """The file declares itself; compared with another checkpoint's weights it is rejected."""
    assert run(checkpoint, tmp_path / "onnx", "--prefill")[0] == 0
    assert check([str(checkpoint), str(tmp_path / "onnx" / "prefill.onnx"), "--quiet"]) == 0
    save_checkpoint(tmp_path / "other", "t5", "seq2seq-lm", seed=1)
    assert check([str(tmp_path / "other"), str(tmp_path / "onnx" / "prefill.onnx"), "--quiet"]) == 1
    assert "present.0.encoder.key: error ratio" in capsys.readouterr().err
    prefill = str(tmp_path / "onnx" / "prefill.onnx")
    assert check([str(checkpoint), prefill, "--feature", "seq2seq-lm", "--quiet"]) == 2
    assert "fills cross-attention caches, which t5 seq2seq-lm does not have" in capsys.readouterr().err


def test_a_rejected_prefill_takes_the_model_with_it(checkpoint, tmp_path, monkeypatch):
    """If one of the two fails, neither is delivered, both are reported, and existing files stay."""
    import torch

    from parity.onnx import checkpoint_export

    export = checkpoint_export.export

    def export_spoiled(preprocessor, model, config, *rest):
        if config.part == "prefill":
            with torch.no_grad():
                model.encoder.block[1].layer[0].layer_norm.weight[0] += 1
        return export(preprocessor, model, config, *rest)

    monkeypatch.setattr(checkpoint_export, "export", export_spoiled)
    (tmp_path / "model.onnx").write_bytes(earlier_export("t5"))
    status, _, err = run(checkpoint, tmp_path, "--prefill")
    assert status == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "prefill.rejected.onnx"]
    assert (tmp_path / "model.onnx").read_bytes() == earlier_export("t5")
    lines = err.splitlines()
    assert any(line.endswith("prefill.rejected.onnx; prefill.onnx was not written.") for line in lines)
    assert lines[-1] == "model.onnx passed, but was not written, because it belongs with the rejected file."


def test_a_feature_without_cross_attention_caches_is_refused(checkpoint, tmp_path, capsys):
    """--prefill with another feature is a usage error that names the valid ones."""
    assert main([f"--model={checkpoint}", "--feature=seq2seq-lm", "--prefill", str(tmp_path / "onnx")]) == 2
    assert "it goes with the -with-past features of encoder-decoders" in capsys.readouterr().err
    assert not (tmp_path / "onnx").exists()


def test_wrong_caches_do_not_generate_the_same(tmp_path):
    """The control of generation without PyTorch: with a prefill file of other weights the check fails."""
    subject = subjects.subject("t5", "seq2seq-lm-with-past")
    session = OnnxSession(subjects.artifact(subject, 17, tmp_path / "model.onnx"))
    from parity.fixtures.checkpoints import tiny_model
    from parity.onnx import export

    other = tiny_model("t5", "seq2seq-lm-with-past", seed=1)
    export(subject.preprocessor, other, subject.onnx_config.prefill(), 17, tmp_path / "prefill.onnx")
    rows = decoding_checks.judge_greedy(subject, session, prefill=OnnxSession(tmp_path / "prefill.onnx"))
    assert not all(row.passed for row in rows)
