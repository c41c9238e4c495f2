"""The document's commands and snippets on ONNX, with `parity.onnx` for `transformers.onnx`.

Tiny checkpoints stand for those of the Hub, under their names and with the files that these have. At the end
configurations in the style of the two that the document points to as advanced examples.
"""

import json
import shlex
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest

from parity.architectures.distilbert import DistilBertOnnxConfig
from parity.environment import at_least
from parity.fixtures import published
from parity.fixtures.checkpoints import tiny_model
from parity.fixtures.preprocessors import preprocessor
from parity.judge.contract import read
from parity.onnx import OnnxConfig, OnnxConfigWithPast, OnnxSeq2SeqConfigWithPast, export, validate_model_outputs
from parity.onnx.__main__ import main
from parity.onnx.features import FeaturesManager

NAME = "distilbert/distilbert-base-uncased"
FINETUNED = "distilbert/distilbert-base-uncased-finetuned-sst-2-english"
LOST_HEAD = (
    "warning: feature default leaves out the head of {}, the class that the checkpoint was saved with; --feature {}"
    " keeps it"
)


def publish(directory):
    """The document's checkpoints, under their names: no file says which tokenizer they have, or what it makes."""
    published.publish(directory / NAME, "distilbert", "masked-lm")
    published.publish(directory / FINETUNED, "distilbert", "sequence-classification")
    for name in (NAME, FINETUNED):
        files = {path.name for path in (directory / name).iterdir()}
        assert files == {"config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt"}
        config = json.loads((directory / name / "tokenizer_config.json").read_text())
        assert not {"tokenizer_class", "processor_class", "model_input_names"} & set(config)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A working directory in which the document's names are checkpoints."""
    publish(tmp_path)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The directory that stands for `distilbert/distilbert-base-uncased`."""
    directory = tmp_path_factory.mktemp("checkpoints")
    publish(directory)
    return str(directory / NAME)


def run(command, capsys):
    """What a command of the document prints on standard output and, but for the progress, on standard error."""
    program, option, module, *arguments = shlex.split(command.replace("\\\n", " "))
    assert (program, option, module) == ("python", "-m", "transformers.onnx")
    capsys.readouterr()
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    return out.splitlines(), [line for line in err.splitlines() if line.startswith("warning")]


@pytest.fixture(scope="module")
def export_directory(checkpoint, tmp_path_factory):
    """The directory that the document's first command writes."""
    directory = tmp_path_factory.mktemp("exported") / "onnx"
    assert main([f"--model={checkpoint}", "--quiet", f"{directory}/"]) == 0
    return directory


class CustomOnnxConfig(OnnxConfig):
    """The document's custom configuration."""

    @property
    def inputs(self) -> Mapping[str, Mapping[int, str]]:
        return OrderedDict(
            [
                ("input_ids", {0: "batch", 1: "sequence"}),
                ("attention_mask", {0: "batch", 1: "sequence"}),
            ]
        )


@pytest.fixture(scope="module")
def custom(checkpoint):
    """Model, tokenizer, custom configuration, file, and what `export` returned."""
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    config = CustomOnnxConfig(AutoConfig.from_pretrained(checkpoint))
    # At the document's opset, 11, there is no sdpa, which transformers 4 chooses for good when it builds the model.
    options = {} if at_least("transformers", "5") else {"attn_implementation": "eager"}
    base_model = AutoModel.from_pretrained(checkpoint, **options)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    path = Path(checkpoint).parent / "custom.onnx"
    names = export(tokenizer, base_model, config, config.default_onnx_opset, path)
    return base_model, tokenizer, config, path, names


def test_the_first_command_prints_the_documents_log(hub, capsys):
    """Word for word; its lines are the document's, verbatim but for the width of the model, and in their order."""
    printed, warnings = run("python -m transformers.onnx --model=distilbert/distilbert-base-uncased onnx/", capsys)
    document = [
        "Validating ONNX model...",
        "        -[✓] ONNX model output names match reference model ({'last_hidden_state'})",
        '        - Validating ONNX Model output "last_hidden_state":',
        "                -[✓] (2, 8, 32) matches (2, 8, 32)",
        "                -[✓] all values close (atol: 1e-05)",
        "All good, model saved at: onnx/model.onnx",
    ]
    assert [line for line in printed if line in document] == document
    assert warnings == [LOST_HEAD.format("DistilBertForMaskedLM", "masked-lm")]


def test_the_onnx_runtime_example_runs_from_the_export_directory_alone(checkpoint, export_directory, monkeypatch):
    """Tokenizer and session come from the directory, and the session answers as PyTorch does."""
    import torch
    from onnxruntime import InferenceSession
    from transformers import AutoModel, AutoTokenizer

    monkeypatch.chdir(export_directory.parent)
    tokenizer = AutoTokenizer.from_pretrained("onnx")
    session = InferenceSession("onnx/model.onnx")
    inputs = tokenizer("w7 w8 with w9 Runtime!", return_tensors="np")
    outputs = session.run(output_names=["last_hidden_state"], input_feed=dict(inputs))
    model = AutoModel.from_pretrained(checkpoint)
    with torch.no_grad():
        reference = model(**{name: torch.from_numpy(array) for name, array in inputs.items()}).last_hidden_state
    assert np.ptp(reference.numpy()) > 1
    np.testing.assert_allclose(outputs[0], reference.numpy(), rtol=0, atol=1e-5)


def test_the_output_names_are_those_of_the_configuration(capsys):
    """`print(list(onnx_config.outputs.keys()))` prints the one output of the default feature."""
    from transformers import DistilBertConfig

    config = DistilBertConfig()
    onnx_config = DistilBertOnnxConfig(config)
    print(list(onnx_config.outputs.keys()))
    assert capsys.readouterr().out == "['last_hidden_state']\n"


def test_a_checkpoint_saved_by_the_user_exports(hub, capsys):
    """Tokenizer and model saved side by side with save_pretrained are a checkpoint."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained("distilbert/distilbert-base-uncased")
    pt_model = AutoModelForSequenceClassification.from_pretrained("distilbert/distilbert-base-uncased")
    tokenizer.save_pretrained("local-pt-checkpoint")
    pt_model.save_pretrained("local-pt-checkpoint")
    _, warnings = run("python -m transformers.onnx --model=local-pt-checkpoint onnx/", capsys)
    assert warnings == [LOST_HEAD.format("DistilBertForSequenceClassification", "sequence-classification")]
    assert [value.name for value in onnx.load("onnx/model.onnx").graph.output] == ["last_hidden_state"]


def test_the_features_of_distilbert_are_those_of_the_last_release(capsys):
    """The list is 4.46.3's; the one printed in the document is older."""
    distilbert_features = list(FeaturesManager.get_supported_features_for_model_type("distilbert").keys())
    print(distilbert_features)
    assert capsys.readouterr().out == (
        "['default', 'masked-lm', 'sequence-classification', 'multiple-choice', 'token-classification',"
        " 'question-answering']\n"
    )


def test_every_feature_of_the_documents_table_has_its_auto_class():
    """The table of features and Auto classes holds."""
    table = {
        "AutoModelForCausalLM": ("causal-lm", "causal-lm-with-past"),
        "AutoModel": ("default", "default-with-past"),
        "AutoModelForMaskedLM": ("masked-lm",),
        "AutoModelForQuestionAnswering": ("question-answering",),
        "AutoModelForSeq2SeqLM": ("seq2seq-lm", "seq2seq-lm-with-past"),
        "AutoModelForSequenceClassification": ("sequence-classification",),
        "AutoModelForTokenClassification": ("token-classification",),
    }
    for name, features in table.items():
        assert {FeaturesManager.get_model_class_for_feature(feature).__name__ for feature in features} == {name}


def test_a_classifier_prints_the_documents_log(hub, capsys):
    """`--feature=sequence-classification` of a finetuned checkpoint prints the document's lines, all of them."""
    printed, warnings = run(
        """python -m transformers.onnx --model=distilbert/distilbert-base-uncased-finetuned-sst-2-english \\
                            --feature=sequence-classification onnx/""",
        capsys,
    )
    document = [
        "Validating ONNX model...",
        "        -[✓] ONNX model output names match reference model ({'logits'})",
        '        - Validating ONNX Model output "logits":',
        "                -[✓] (2, 2) matches (2, 2)",
        "                -[✓] all values close (atol: 1e-05)",
        "All good, model saved at: onnx/model.onnx",
    ]
    assert [line for line in printed if line in document] == document
    assert warnings == []


def test_a_custom_configuration_has_the_documents_opset(custom, capsys):
    """`print(onnx_config.default_onnx_opset)` prints 11, and that is the opset of the file."""
    _, _, onnx_config, path, _ = custom
    print(onnx_config.default_onnx_opset)
    assert capsys.readouterr().out == "11\n"
    assert [(entry.domain, entry.version) for entry in onnx.load(path).opset_import] == [("", 11)]


def test_a_custom_configuration_has_the_documents_outputs(checkpoint, custom):
    """`outputs` is an OrderedDict of names and axes that follows the task."""
    from transformers import AutoConfig

    _, _, onnx_config, _, _ = custom
    assert onnx_config.outputs == OrderedDict([("last_hidden_state", {0: "batch", 1: "sequence"})])
    assert isinstance(onnx_config.outputs, OrderedDict)
    config = AutoConfig.from_pretrained(checkpoint)
    onnx_config_for_seq_clf = CustomOnnxConfig(config, task="sequence-classification")
    assert onnx_config_for_seq_clf.outputs == OrderedDict([("logits", {0: "batch"})])


def test_export_returns_the_names_of_the_configuration(custom):
    """`export` returns the keys of `inputs` and of `outputs`."""
    _, _, onnx_config, _, (onnx_inputs, onnx_outputs) = custom
    assert onnx_inputs == list(onnx_config.inputs) == ["input_ids", "attention_mask"]
    assert onnx_outputs == list(onnx_config.outputs) == ["last_hidden_state"]


def test_the_exported_file_is_well_formed(custom):
    """`onnx.checker` accepts the file, with full checks."""
    _, _, _, path, _ = custom
    onnx_model = onnx.load(path)
    onnx.checker.check_model(onnx_model, full_check=True)


def test_the_custom_export_validates(custom):
    """`validate_model_outputs` accepts the file at the configuration's own tolerance."""
    base_model, tokenizer, onnx_config, onnx_path, (_, onnx_outputs) = custom
    assert onnx_config.atol_for_validation == 1e-5
    validate_model_outputs(onnx_config, tokenizer, base_model, onnx_path, onnx_outputs, onnx_config.atol_for_validation)


def test_the_validation_of_another_model_fails(custom):
    """The same call with a model of other weights raises: the acceptance above means something."""
    from transformers import AutoModel

    base_model, tokenizer, onnx_config, onnx_path, (_, onnx_outputs) = custom
    other = AutoModel.from_config(base_model.config).eval()
    with pytest.raises(ValueError, match=r"last_hidden_state: .* values differ"):
        validate_model_outputs(onnx_config, tokenizer, other, onnx_path, onnx_outputs, 1e-3)


class LegacyDecoder(OnnxConfigWithPast):
    """A decoder as 4.46.3 wrote them: its own dummy inputs, and past inputs under the name of the outputs' axis."""

    num_layers = property(lambda self: self._config.n_layer)
    num_attention_heads = property(lambda self: self._config.n_head)
    default_onnx_opset = 13

    @property
    def inputs(self):
        inputs, length = OrderedDict(input_ids={0: "batch", 1: "sequence"}), "sequence"
        if self.use_past:
            length = "past_sequence + sequence"
            for layer in range(self.num_layers):
                for part in ("key", "value"):
                    inputs[f"past_key_values.{layer}.{part}"] = {0: "batch", 2: length}
        inputs["attention_mask"] = {0: "batch", 1: length}
        return inputs

    def generate_dummy_inputs(self, tokenizer, batch_size=-1, seq_length=-1, is_pair=False, framework=None):
        import torch

        text = super(OnnxConfigWithPast, self).generate_dummy_inputs(
            tokenizer, batch_size=batch_size, seq_length=seq_length, is_pair=is_pair, framework=framework
        )
        mask = text["attention_mask"]
        inputs = OrderedDict(input_ids=text["input_ids"])
        if self.use_past:
            batch, length = text["input_ids"].shape
            size = self._config.hidden_size // self.num_attention_heads
            shape = (batch, self.num_attention_heads, length + 2, size)
            inputs["past_key_values"] = [(torch.zeros(shape), torch.zeros(shape)) for _ in range(self.num_layers)]
            mask = torch.cat([mask, torch.ones(batch, length + 2, dtype=mask.dtype)], dim=1)
        inputs["attention_mask"] = mask
        return inputs


class LegacyEncoderDecoder(OnnxSeq2SeqConfigWithPast):
    """An encoder-decoder as 4.46.3 wrote them: with a past the decoder takes one token, and its mask has floats."""

    @property
    def inputs(self):
        inputs = OrderedDict((name, {0: "batch", 1: "encoder_sequence"}) for name in ("input_ids", "attention_mask"))
        inputs["decoder_input_ids"] = {0: "batch"} if self.use_past else {0: "batch", 1: "decoder_sequence"}
        mask = "past_decoder_sequence + sequence" if self.use_past else "decoder_sequence"
        inputs["decoder_attention_mask"] = {0: "batch", 1: mask}
        if self.use_past:
            self.fill_with_past_key_values_(inputs, direction="inputs")
        return inputs

    def generate_dummy_inputs(self, tokenizer, batch_size=-1, seq_length=-1, is_pair=False, framework=None):
        import torch

        text = super(OnnxConfigWithPast, self).generate_dummy_inputs
        options = {"batch_size": batch_size, "is_pair": is_pair, "framework": framework}
        inputs = dict(text(tokenizer, seq_length=seq_length, **options))
        decoder = text(tokenizer, seq_length=3 if self.use_past else seq_length, **options)
        first = -1 if self.use_past else 0
        inputs.update((f"decoder_{name}", tensor[:, first:]) for name, tensor in decoder.items())
        if self.use_past:
            (batch, length), past = inputs["input_ids"].shape, inputs["decoder_input_ids"].shape[1] + 3
            _, layers = self.num_layers
            _, heads = self.num_attention_heads
            own, cross = ((batch, heads, n, self._config.hidden_size // heads) for n in (past, length))
            inputs["past_key_values"] = [
                (torch.zeros(own), torch.zeros(own), torch.zeros(cross), torch.zeros(cross)) for _ in range(layers)
            ]
            mask = [inputs["decoder_attention_mask"], torch.ones(batch, past)]
            inputs["decoder_attention_mask"] = torch.cat(mask, dim=1)
        return inputs


@pytest.mark.parametrize("task", ["causal-lm", "causal-lm-with-past"])
def test_a_decoder_configuration_of_the_old_style_exports_and_validates(task, tmp_path):
    """Its own dummy inputs, and axes that contradict each other by name, make a file that is right at other sizes."""
    model = tiny_model("gpt2", task)
    make = LegacyDecoder.with_past if task.endswith("-with-past") else LegacyDecoder
    config = make(model.config, task=task.removesuffix("-with-past"))
    path, tokenizer = tmp_path / "model.onnx", preprocessor("gpt2")
    inputs, outputs = export(tokenizer, model, config, config.default_onnx_opset, path)
    assert inputs == list(config.generate_dummy_inputs(tokenizer, framework="pt"))
    assert [value.name for value in read(path).inputs] == list(config.inputs)
    validate_model_outputs(config, tokenizer, model, path, outputs, 1e-4)


@pytest.mark.parametrize("task", ["seq2seq-lm", "seq2seq-lm-with-past"])
def test_an_encoder_decoder_configuration_of_the_old_style_exports_and_validates(task, tmp_path):
    """One decoder token, and a mask of integers and floats, make a file that is right at other sizes of the rest."""
    model = tiny_model("bart", task)
    make = LegacyEncoderDecoder.with_past if task.endswith("-with-past") else LegacyEncoderDecoder
    config = make(model.config, task=task.removesuffix("-with-past"))
    path, tokenizer = tmp_path / "model.onnx", preprocessor("bart")
    _, outputs = export(tokenizer, model, config, 13, path)
    assert outputs == list(config.outputs) == [value.name for value in read(path).outputs]
    assert [value.name for value in read(path).inputs] == list(config.inputs)
    validate_model_outputs(config, tokenizer, model, path, outputs, 1e-4)
