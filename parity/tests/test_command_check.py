"""`python -m parity.check MODEL_DIR model.onnx` on right and wrong files from other exporters."""

import functools
import inspect
import json
import warnings
from types import SimpleNamespace

import onnx
import pytest

from parity import cli
from parity.check import guess_feature, main
from parity.errors import UsageError
from parity.fixtures.checkpoints import save_checkpoint, tiny_config, tiny_model
from parity.fixtures.controls import commands
from parity.onnx.__main__ import main as export_main
from parity.registry import architectures

LENGTH = 8


run = functools.partial(commands.run, command=main)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Feature → the directory of a tiny distilbert checkpoint saved for it."""

    @functools.cache
    def save(feature="default"):
        directory = tmp_path_factory.mktemp(feature)
        save_checkpoint(directory, "distilbert", feature)
        return directory

    return save


@pytest.fixture(scope="module")
def good(checkpoint, tmp_path_factory):
    """The file that parity exports from the default checkpoint."""
    output = tmp_path_factory.mktemp("exported")
    assert run("-m", checkpoint(), "--quiet", output, command=export_main)[0] == 0
    return output / "model.onnx"


def wrap(model, output, spoil, masked):
    """The model wrapped as in somebody's script; `spoil` changes the answer, `masked` passes the mask on."""
    import torch

    class Bare(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask=None):
            mask = attention_mask if masked else None
            return spoil(self.model(input_ids=input_ids, attention_mask=mask)[output], input_ids)

    return Bare().eval()


def leave_alone(model):
    pass


def bare(
    path,
    feature="default",
    output="last_hidden_state",
    *,
    name=None,
    inputs=("input_ids", "attention_mask"),
    spoil=lambda answer, input_ids: answer,
    masked=True,
    change=leave_alone,
    dynamic=("batch", "sequence"),
):
    """Export the checkpoint's model with `torch.onnx.export` alone, without metadata; returns the path."""
    import torch

    model = tiny_model("distilbert", feature)
    change(model)
    ids = torch.arange(5, 5 + 2 * LENGTH).view(2, LENGTH)
    axes = {axis: name for axis, name in enumerate(("batch", "sequence")) if name in dynamic}
    name = name or output
    options = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            wrap(model, output, spoil, masked),
            (ids, torch.ones_like(ids))[: len(inputs)],
            str(path),
            input_names=list(inputs),
            output_names=[name],
            dynamic_axes=dict.fromkeys((*inputs, name), axes),
            opset_version=17,
            **options,
        )
    return path


def test_file_of_parity_passes(checkpoint, good):
    """A file exported by parity gives exit status 0, with the same log and its opset."""
    status, log, err = run(checkpoint(), good)
    assert (status, err) == (0, "")
    assert log.splitlines()[0] == f"Judging {good}: feature default, opset 11"
    assert "        -[✓] ONNX model output names match reference model ({'last_hidden_state'})" in log.splitlines()
    assert "                -[✓] (2, 8, 32) matches (2, 8, 32)" in log.splitlines()
    assert log.splitlines()[-1] == f"All good: {good} computes what {checkpoint()} computes"


@pytest.fixture(scope="module")
def gpt2_files(tmp_path_factory):
    """A tiny GPT-2, whose left-padded rows see nothing at their first tokens, with a file for each attention."""
    from parity.fixtures.preprocessors import preprocessor
    from parity.onnx import export
    from parity.onnx.features import constructor

    directory = tmp_path_factory.mktemp("padded")
    save_checkpoint(directory, "gpt2", "causal-lm")
    for attention in ("eager", "sdpa"):
        model = tiny_model("gpt2", "causal-lm", attention=attention)
        config = constructor("gpt2", "causal-lm")(model.config)
        export(preprocessor("gpt2"), model, config, 17, directory / f"{attention}.onnx")
    return directory


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_file_is_judged_by_its_own_attention(gpt2_files, attention):
    """Each of our files is compared with a model of the attention in its metadata, at every position."""
    status, out, _ = run(gpt2_files, gpt2_files / f"{attention}.onnx", "--json")
    result = json.loads(out)
    assert (status, result["status"], result["masked"]) == (0, "passed", 0)


def rename_attention(path, attention):
    """The file with another attention in its metadata; None removes it."""
    model = onnx.load(path)
    entries = [entry for entry in model.metadata_props if entry.key != "attention"]
    del model.metadata_props[:]
    model.metadata_props.extend(entries)
    if attention:
        model.metadata_props.add(key="attention", value=attention)
    onnx.save(model, path.with_name("renamed.onnx"))
    return path.with_name("renamed.onnx")


def test_file_that_names_another_attention_is_seen(gpt2_files):
    """The control: an sdpa file marked as eager is wrong for tokens that see nothing."""
    assert run(gpt2_files, rename_attention(gpt2_files / "sdpa.onnx", "eager"))[0] == 1


@pytest.mark.parametrize("attention", [None, "flash"])
def test_file_of_unknown_attention_is_judged_at_real_tokens(gpt2_files, attention):
    """Without a known attention, values at masked positions must be finite, and are counted."""
    status, out, log = run(gpt2_files, rename_attention(gpt2_files / "sdpa.onnx", attention), "--json")
    result = json.loads(out)
    assert f"judged {result['judged']:,} of {result['values']:,} values; {result['masked']:,} at masked" in log
    assert result["judged"] + result["masked"] == result["values"]
    assert (status, result["status"]) == (0, "passed")
    assert 0 < result["masked"] < result["values"]


@pytest.mark.parametrize(
    ("feature", "output"),
    [("default", "last_hidden_state"), ("masked-lm", "logits"), ("token-classification", "logits")],
)
def test_bare_export_passes_and_its_feature_is_guessed(checkpoint, tmp_path, feature, output):
    """A file without metadata is judged for the feature that its outputs and config.architectures indicate."""
    file = bare(tmp_path / "bare.onnx", feature, output)
    assert len(onnx.load(str(file)).metadata_props) == 0
    status, log, err = run(checkpoint(feature), file)
    assert (status, err) == (0, "")
    assert log.splitlines()[0].endswith(f"feature {feature}, opset 17")


def test_parity_check_is_the_same_command(checkpoint, good):
    """`parity check …` gives what `python -m parity.check …` gives."""
    assert run("check", checkpoint(), good, command=cli.main) == run(checkpoint(), good)


def test_wrong_output_name_is_rejected(checkpoint, tmp_path):
    """An output with another name gives exit status 1, and both names are reported."""
    file = bare(tmp_path / "named.onnx", name="hidden")
    status, log, err = run(checkpoint(), file, "--feature", "default")
    assert status == 1
    assert "output hidden: is not an output of the model; name the model's output for it with --names" in err
    assert "-[x] ONNX model output names do not match reference model" in log


def test_missing_mask_input_is_rejected(checkpoint, tmp_path):
    """A file without the attention mask gives exit status 1: the input is named first, then the padded shapes."""
    file = bare(tmp_path / "maskless.onnx", inputs=("input_ids",))
    status, log, err = run(checkpoint(), file)
    assert status == 1
    assert err.splitlines()[0].startswith("error: input attention_mask: is missing, should be an input of the file")
    assert "at batch 3 × sequence 12, padded right: last_hidden_state:" in err
    assert "at batch 2 × sequence 31:" not in err
    assert "-[✓] ONNX model output names match reference model" in log


def move_one_bias(model):
    import torch

    with torch.no_grad():
        model.transformer.layer[1].output_layer_norm.bias[3] += 0.5


def test_wrong_weights_are_rejected(checkpoint, tmp_path):
    """One changed weight gives exit status 1, with output, count, worst difference and index."""
    status, log, err = run(checkpoint(), bare(tmp_path / "other.onnx", change=move_one_bias))
    assert status == 1
    assert "at batch 1 × sequence 1: last_hidden_state: 1 of 32 values differ" in err
    assert "worst difference 0.5 at index (0, 0, 3)" in err
    assert "All good" not in log


def baked_length(answer, input_ids):
    """Divide by the length as a Python number, multiply by the actual length: right only at the traced length."""
    return answer * input_ids.ne(-1).sum(1)[:, None, None].to(answer) / float(int(input_ids.shape[1]))


@pytest.mark.parametrize("options", [[], ["--atol=1e-4"]], ids=["ratio", "atol"])
def test_length_that_is_baked_in_is_named(checkpoint, tmp_path, options):
    """A file with a dynamic sequence axis that is right only at the exported length is rejected; the axis is named."""
    status, log, err = run(checkpoint(), bare(tmp_path / "baked.onnx", spoil=baked_length), *options)
    assert status == 1
    assert err.splitlines()[0].startswith(f"error: axis sequence: the file is right if sequence is {LENGTH}")
    assert "the size has become a constant, though the file declares the axis dynamic" in err
    assert f"-[✓] batch 2 × sequence {LENGTH}: largest" in log
    assert "-[x] batch 3 × sequence 1: largest" in log


def test_fixed_axis_is_judged_at_its_size(checkpoint, tmp_path):
    """A file with a fixed sequence axis is judged only at that size."""
    status, log, err = run(checkpoint(), bare(tmp_path / "fixed.onnx", dynamic=("batch",)))
    assert (status, err) == (0, "")
    assert log.splitlines()[-1].endswith(f", at sequence {LENGTH} only")
    assert f"sequence {LENGTH}" in log
    assert "sequence 31" not in log


def test_fault_in_a_file_of_one_size_is_rejected(checkpoint, tmp_path):
    """The control: a changed weight fails at a single size too."""
    file = bare(tmp_path / "fixed.onnx", dynamic=(), change=move_one_bias)
    status, _, err = run(checkpoint(), file)
    assert status == 1
    assert "last_hidden_state" in err


def test_dropped_mask_is_rejected(checkpoint, tmp_path):
    """A file that hides the mask from the model gives exit status 1."""
    status, _, err = run(checkpoint(), bare(tmp_path / "dropped.onnx", masked=False))
    assert status == 1
    assert "attention_mask" in err


def rewrite(good, directory, change):
    """The good file in a separate directory, changed; `change` gets its ModelProto and path, and saves it."""
    file = directory / "model.onnx"
    change(onnx.load(str(good)), file)
    return file


def weight_again(model, path):
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    model.graph.initializer.add().CopyFrom(largest)
    model.graph.initializer[-1].name = "written_again"
    onnx.save(model, str(path))


def data_beside(model, path):
    options = {"save_as_external_data": True, "location": "weights", "size_threshold": 1024}
    onnx.save(model, str(path), **options)


def data_gone(model, path):
    data_beside(model, path)
    path.with_name("weights").unlink()


def backwards(model, path):
    model.graph.node.insert(0, model.graph.node.pop())
    onnx.save(model, str(path))


def test_data_beside_the_file_is_as_good(checkpoint, good, tmp_path):
    """Weights in a file next to the model give exit status 0."""
    assert run(checkpoint(), rewrite(good, tmp_path, data_beside), "--quiet") == (0, "", "")
    assert sorted(child.name for child in tmp_path.iterdir()) == ["model.onnx", "weights"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (weight_again, "again as written_again"),
        (data_gone, "external data weights: does not exist"),
        (backwards, "the checker of ONNX refuses it"),
    ],
)
def test_a_file_that_is_wrong_on_the_disk_is_rejected(checkpoint, good, tmp_path, change, message):
    """A duplicate weight, missing data, an unsorted graph: exit status 1, named in the first line.

    None of these changes a value.
    """
    file = rewrite(good, tmp_path, change)
    status, log, err = run(checkpoint(), file)
    assert status == 1
    assert message in err.splitlines()[0]
    assert "All good" not in log


def test_what_does_not_load_says_that_nothing_was_compared(checkpoint, good, tmp_path):
    """A file without its data cannot run: no shape is listed as validated."""
    status, log, err = run(checkpoint(), rewrite(good, tmp_path, data_gone))
    assert status == 1
    assert "ONNX Runtime cannot load it" in err.splitlines()[1]
    assert log.splitlines()[-2].endswith("- Validated at 0 shapes:")
    assert "[✓] (2, 8, 32)" not in log


def test_atol_is_a_hard_limit(checkpoint, good):
    """An --atol that float32 cannot meet gives exit status 1 although the ratio passes."""
    status, _, err = run(checkpoint(), good, "--atol", "1e-12")
    assert status == 1
    assert "by more than 1e-12" in err


@pytest.mark.parametrize("atol", ["-1", "x", "nan"])
def test_bad_atol_is_usage(checkpoint, good, atol, capsys):
    """An invalid atol gives exit status 2."""
    with pytest.raises(SystemExit, match="2"):
        main([str(checkpoint()), str(good), f"--atol={atol}"])
    assert f"got {atol}, should be a number ≥ 0" in capsys.readouterr().err


def test_quiet_says_nothing(checkpoint, good):
    """--quiet leaves both streams empty if the file is right."""
    assert run(checkpoint(), good, "--quiet") == (0, "", "")


def one_message(status, err, *fragments):
    """Assert that there is one line of error with the fragments; returns the exit status."""
    lines = err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("python -m parity.check: error: ")
    assert [fragment for fragment in fragments if fragment not in lines[0]] == []
    return status


def test_missing_file_is_usage(checkpoint, tmp_path):
    """A missing file gives exit status 2."""
    status, out, err = run(checkpoint(), tmp_path / "none.onnx")
    assert one_message(status, err, str(tmp_path / "none.onnx"), "no such file", "give the ONNX file") == 2
    assert out == ""


@pytest.mark.parametrize("content", [b"", b"no ONNX file", b"\x08\x06" * 40], ids=["empty", "text", "binary"])
def test_file_that_is_no_onnx_file_is_rejected(checkpoint, tmp_path, content):
    """A file that is not an ONNX model gives exit status 1."""
    file = tmp_path / "model.onnx"
    file.write_bytes(content)
    status, _, err = run(checkpoint(), file)
    assert one_message(status, err, str(file)) == 1


def test_truncated_file_is_rejected(checkpoint, good, tmp_path):
    """Half a file gives exit status 1."""
    file = tmp_path / "half.onnx"
    file.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    status, _, err = run(checkpoint(), file)
    assert one_message(status, err, str(file), "not a readable ONNX file") == 1


def test_missing_checkpoint_is_usage(good, tmp_path):
    """A missing checkpoint gives exit status 2."""
    status, _, err = run(tmp_path / "nowhere", good)
    assert one_message(status, err, "nowhere", "no such directory") == 2


@pytest.mark.parametrize(
    ("name", "fragments"),
    [
        ("logits", ("fits masked-lm, sequence-classification", "--feature")),
        ("hidden", ("outputs hidden, which fit none", "--feature")),
    ],
)
def test_feature_that_cannot_be_guessed_is_usage(checkpoint, tmp_path, name, fragments):
    """If outputs fit several features or none and nothing decides, exit status is 2 with a request for --feature."""
    status, _, err = run(checkpoint(), bare(tmp_path / "file.onnx", name=name))
    assert one_message(status, err, *fragments) == 2


# In these models both features have one class with one output.
SAME_HEAD = {("flaubert", "masked-lm"), ("flaubert", "causal-lm"), ("xlm", "masked-lm"), ("xlm", "causal-lm")}


def guess_or_none(file, config):
    """The feature, or None if the user must choose."""
    try:
        return guess_feature(file, config)
    except UsageError:
        return None


def test_every_saved_head_names_its_feature():
    """Outputs and `config.architectures` of each declared model give its feature, except for two classes."""
    from parity.onnx import features
    from parity.onnx.features import constructor

    ambiguities = set()
    for declared in architectures():
        for feature in declared.features:
            if declared.gap_of(feature):
                continue
            config = tiny_config(declared.model_type)
            outputs = constructor(declared.model_type, feature)(config).outputs
            file = SimpleNamespace(metadata={}, outputs=[SimpleNamespace(name=name) for name in outputs])
            for head in features.heads(config, feature):
                config.architectures = [head.__name__]
                guess = guess_or_none(file, config)
                if guess is None:
                    ambiguities.add((declared.name, feature))
                else:
                    assert guess == feature
    assert ambiguities == SAME_HEAD


def test_unknown_feature_lists_the_supported_ones(checkpoint, good):
    """A feature that the model does not have gives exit status 2."""
    status, _, err = run(checkpoint(), good, "--feature", "seq2seq-lm")
    assert one_message(status, err, "seq2seq-lm", "supported: default, masked-lm") == 2


def test_random_weights_are_no_reference(checkpoint, tmp_path):
    """A file is not judged against a head that the checkpoint lacks."""
    file = bare(tmp_path / "head.onnx", "masked-lm", "logits")
    status, _, err = run(checkpoint(), file, "--feature", "masked-lm")
    assert one_message(status, err, "would be random", "choose the feature") == 1


@pytest.mark.parametrize(("change", "status"), [(leave_alone, "passed"), (move_one_bias, "failed")])
def test_json_is_one_object(checkpoint, tmp_path, change, status):
    """--json prints one object on standard output with verdict, feature, opset, outputs and failures."""
    file = bare(tmp_path / "file.onnx", change=change)
    code, out, _ = run(checkpoint(), file, "--json")
    result = json.loads(out)
    assert (code, result["status"]) == (int(status == "failed"), status)
    assert (result["file"], result["feature"], result["opset"]) == (str(file), "default", 17)
    assert set(result["outputs"]["last_hidden_state"]) == {"shape", "worst", "ratio"}
    assert bool(result["failures"]) == (status == "failed")
    assert len(result["validated_at"]) >= 8


@pytest.fixture(scope="module")
def large_vocabulary(tmp_path_factory):
    """A BERT with vocabulary and positions of the published model, and its file exported by parity."""
    import torch
    from transformers import BertConfig, BertModel

    from parity.fixtures.checkpoints import scramble
    from parity.fixtures.preprocessors import preprocessor

    directory, output = (tmp_path_factory.mktemp(name) for name in ("vocabulary", "exported"))
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertModel(BertConfig(vocab_size=30522, max_position_embeddings=512, **sizes))
    scramble(model)
    model.save_pretrained(directory)
    preprocessor("bert").save_pretrained(directory)
    assert run("-m", directory, "--quiet", output, command=export_main)[0] == 0
    return directory, output / "model.onnx"


def zero_rows(file, path, end, first):
    """The file with zeros from row `first` on in the weight whose name ends with `end`."""
    model = onnx.load(str(file))
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name.endswith(end))
    values = onnx.numpy_helper.to_array(tensor).copy()
    values[first:] = 0
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(model, str(path))
    return path


def test_every_weight_is_looked_for(large_vocabulary):
    """Log and JSON object have the number of weights found; the pooler does not affect the output."""
    directory, file = large_vocabulary
    status, out, log = run(directory, file, "--json")
    assert status == 0
    assert "        -[✓] weights: 37 of 37 found" in log.splitlines()
    assert json.loads(out)["weights"] == {"found": 37, "needed": 37, "absent": [], "unexplained": []}


@pytest.mark.parametrize(
    ("name", "first", "count"),
    [
        ("embeddings.word_embeddings.weight", 4096, (30522 - 4096) * 32),
        ("embeddings.word_embeddings.weight", 30521, 32),
        ("embeddings.position_embeddings.weight", 32, (512 - 32) * 32),
        ("embeddings.position_embeddings.weight", 511, 32),
    ],
)
def test_rows_that_no_sample_reads_are_rejected(large_vocabulary, tmp_path, name, first, count):
    """Embeddings that are zero beyond the drawn ids give exit status 1, with the weight's name and index."""
    directory, file = large_vocabulary
    status, out, log = run(directory, zero_rows(file, tmp_path / "zeroed.onnx", name, first), "--json")
    assert status == 1
    assert f"weight {name}: {count:,} of " in log
    assert f"first at index ({first}, 0): got 0, should be " in log
    (failure,) = [each for each in json.loads(out)["failures"] if each["check"] == "weights"]
    assert failure["subject"] == name


def test_another_order_of_inputs_is_a_remark(checkpoint, tmp_path):
    """A foreign file passes with its inputs in another order than declared; the order is reported."""
    file = bare(tmp_path / "ordered.onnx")
    model = onnx.load(str(file))
    model.graph.input.append(model.graph.input.pop(0))
    onnx.save(model, str(file))
    status, out, log = run(checkpoint(), file, "--json")
    remark = "input names: are in the order attention_mask, input_ids; should be in the order input_ids, attention_mask"
    assert (status, json.loads(out)["remarks"]) == (0, [remark])
    assert f"        - {remark}" in log.splitlines()


def test_another_order_in_a_file_of_ours_fails(checkpoint, good, tmp_path):
    """It promises the declared one; the same file as it was written passes."""
    model = onnx.load(str(good))
    model.graph.input.insert(1, model.graph.input.pop(0))
    onnx.save(model, str(tmp_path / "ordered.onnx"))
    status, _, log = run(checkpoint(), tmp_path / "ordered.onnx")
    assert (status, run(checkpoint(), good)[0]) == (1, 0)
    assert "input names: the file has attention_mask, input_ids; should be input_ids, attention_mask" in log
