"""Overriding each method and property of a configuration has an effect on the file or the validation."""

import typing
from collections import OrderedDict
from collections.abc import MutableMapping

import numpy as np
import onnx
import pytest

from parity.architectures.bart import BartOnnxConfig
from parity.architectures.bert import BertOnnxConfig
from parity.architectures.gpt2 import GPT2OnnxConfig
from parity.environment import at_least
from parity.errors import ExportError, SessionError, ValueMismatch
from parity.fixtures.checkpoints import tiny_model
from parity.fixtures.preprocessors import preprocessor
from parity.judge.contract import read
from parity.onnx import OnnxConfigWithPast, PatchingSpec, export, validate_model_outputs
from parity.onnx.features import constructor
from parity.sessions import OnnxSession


@pytest.fixture(scope="module")
def gpt2():
    """A tiny GPT2Model."""
    return tiny_model("gpt2")


@pytest.fixture
def path(tmp_path):
    """The path of the test's file."""
    return tmp_path / "model.onnx"


def export_and_read(config, model, path, opset=13):
    """Export, and read the file's contract."""
    export(preprocessor(model.config.model_type), model, config, opset, path)
    return read(path)


def validate(config, model, path, atol=1e-4):
    """Raise if the file's answers are not the model's."""
    validate_model_outputs(config, preprocessor(model.config.model_type), model, path, list(config.outputs), atol)


def axes(values):
    """Name → axes of a contract's inputs or outputs."""
    return {value.name: value.axes for value in values}


def operators(path):
    """The operators that the file uses."""
    return {node.op_type for node in onnx.load(path).graph.node}


def test_inputs_decide_the_files_inputs(bert_model, path):
    """The file has exactly the inputs of `inputs`, in its order and with its names of axes."""

    class Custom(BertOnnxConfig):
        @property
        def inputs(self):
            return OrderedDict(attention_mask={0: "rows", 1: "tokens"}, input_ids={0: "rows", 1: "tokens"})

    config = Custom(bert_model.config)
    file = export_and_read(config, bert_model, path)
    assert list(axes(file.inputs).items()) == [
        ("attention_mask", ("rows", "tokens")),
        ("input_ids", ("rows", "tokens")),
    ]
    validate(config, bert_model, path)


def test_outputs_decide_the_files_outputs(bert_model, path):
    """The file has the outputs of `outputs`, in its order, and all are validated."""

    class Custom(BertOnnxConfig):
        @property
        def outputs(self):
            return OrderedDict(pooler_output={0: "rows"}, last_hidden_state={0: "rows", 1: "tokens"})

    config = Custom(bert_model.config)
    file = export_and_read(config, bert_model, path)
    assert axes(file.outputs) == {"pooler_output": ("rows", 32), "last_hidden_state": ("rows", "tokens", 32)}
    validate(config, bert_model, path)
    with pytest.raises(ValueError, match=r"pooler_output: .*\n(.*\n)*.*last_hidden_state: "):
        validate(config, bert_model, path, atol=1e-12)


def test_generate_dummy_inputs_decides_the_traced_sizes(bert_model, path):
    """A fixed axis of the file has the size from `generate_dummy_inputs`."""

    class Custom(BertOnnxConfig):
        @property
        def inputs(self):
            return OrderedDict((name, {0: "batch"}) for name in super().inputs)

        def generate_dummy_inputs(self, preprocessor, batch_size=-1, seq_length=-1, framework=None):
            return super().generate_dummy_inputs(preprocessor, batch_size, seq_length=5, framework=framework)

    config = Custom(bert_model.config)
    file = export_and_read(config, bert_model, path)
    assert set(axes(file.inputs).values()) == {("batch", 5)}
    validate(config, bert_model, path)


def test_generate_dummy_inputs_is_asked_for_the_other_shapes(bert_model, path):
    """Validation calls `generate_dummy_inputs` with at least eight other sizes: more and fewer rows and tokens."""
    requests = []

    class Custom(BertOnnxConfig):
        def generate_dummy_inputs(self, preprocessor, batch_size=-1, seq_length=-1, **options):
            requests.append((batch_size, seq_length))
            return super().generate_dummy_inputs(preprocessor, batch_size, seq_length, **options)

    config = Custom(bert_model.config)
    export_and_read(config, bert_model, path)
    assert requests == [(-1, -1)]
    validate(config, bert_model, path)
    sizes = set(requests[2:])
    assert requests[1] == (-1, -1)
    assert len(sizes) >= 8
    assert {batch for batch, _ in sizes} >= {1, 2, 3}
    assert min(length for _, length in sizes) < 8 < max(length for _, length in sizes)


def test_generate_dummy_inputs_onnxruntime_decides_what_the_runtime_gets(bert_model, path):
    """ONNX Runtime gets its result, while the model gets the reference inputs."""

    class Custom(BertOnnxConfig):
        def generate_dummy_inputs_onnxruntime(self, reference_model_inputs):
            tokens = reference_model_inputs["input_ids"]
            return {**reference_model_inputs, "input_ids": tokens.new_full(tokens.shape, 7)}

    export_and_read(BertOnnxConfig(bert_model.config), bert_model, path)
    validate(BertOnnxConfig(bert_model.config), bert_model, path)
    with pytest.raises(ValueMismatch, match="last_hidden_state"):
        validate(Custom(bert_model.config), bert_model, path)


def test_fill_with_past_key_values_decides_the_axes_of_the_caches(gpt2, path):
    """Caches, on both sides of the file, have the axes from `fill_with_past_key_values_`."""

    class Custom(GPT2OnnxConfig):
        def fill_with_past_key_values_(self, inputs_or_outputs, direction, inverted_values_shape=False):
            super().fill_with_past_key_values_(inputs_or_outputs, direction, inverted_values_shape)
            for name in list(inputs_or_outputs):
                if name.endswith((".key", ".value")):
                    inputs_or_outputs[name] = {0: "rows", 2: f"{direction}_length"}

    config = Custom.with_past(gpt2.config)
    file = export_and_read(config, gpt2, path)
    caches = {name: cache_axes for name, cache_axes in (axes(file.inputs) | axes(file.outputs)).items() if "." in name}
    assert len(caches) == 8
    for name, cache_axes in caches.items():
        side = "inputs" if name.startswith("past_key_values") else "outputs"
        assert cache_axes == ("rows", 4, f"{side}_length", 8)
    validate(config, gpt2, path)


@pytest.mark.parametrize("base", [GPT2OnnxConfig, BartOnnxConfig])
def test_fill_with_past_key_values_writes_into_what_it_is_given(base):
    """Its type is a mutable mapping, and existing entries stay."""
    assert typing.get_origin(typing.get_type_hints(base.fill_with_past_key_values_)["inputs_or_outputs"]) is (
        MutableMapping
    )
    config = base.with_past(tiny_model(base.__module__.rpartition(".")[-1]).config)
    names = {"input_ids": {0: "batch"}}
    assert config.fill_with_past_key_values_(names, direction="inputs") is None
    assert list(names)[:2] == ["input_ids", next(name for name in names if name.startswith("past_key_values.0"))]


@pytest.mark.parametrize("base", [GPT2OnnxConfig, BartOnnxConfig])
def test_head_size_decides_the_shape_of_the_caches(base):
    """A configuration of another package, for a model whose head size is not in the model's configuration."""

    class Custom(base):
        def head_size(self, heads):
            return heads + 1

    model_type = base.__module__.rpartition(".")[-1]
    config = tiny_model(model_type).config
    for onnx_config in (Custom.with_past(config), Custom.with_past(config, task="causal-lm")):
        caches = onnx_config.generate_dummy_inputs(preprocessor(model_type), framework="pt")["past_key_values"]
        shapes = [tensor.shape for layer in caches for tensor in layer]
        assert {shape[-1] - shape[1] for shape in shapes} == {1}


def test_flatten_output_collection_property_names_the_caches(gpt2, path):
    """Inputs and outputs of the caches have the names from `flatten_output_collection_property`."""

    class Custom(GPT2OnnxConfig):
        def fill_with_past_key_values_(self, inputs_or_outputs, direction, inverted_values_shape=False):
            kind = "past" if direction == "inputs" else "present"
            for layer in range(self.num_layers):
                for part in "kv":
                    inputs_or_outputs[f"{kind}_{part}{layer}"] = {0: "batch", 2: f"{kind}_length"}

        def flatten_output_collection_property(self, name, field):
            kind = {"past_key_values": "past"}.get(name, name)
            return {f"{kind}_{p}{i}": t for i, layer in enumerate(field) for p, t in zip("kv", layer, strict=True)}

    config = Custom.with_past(gpt2.config)
    file = export_and_read(config, gpt2, path)
    assert list(axes(file.inputs))[1:-1] == ["past_k0", "past_v0", "past_k1", "past_v1"]
    assert list(axes(file.outputs))[1:] == ["present_k0", "present_v0", "present_k1", "present_v1"]
    validate(config, gpt2, path)


class HiddenStates(BertOnnxConfig):
    """The output of every layer, which the model returns only on request of its configuration."""

    @property
    def values_override(self):
        return {"output_hidden_states": True}

    @property
    def outputs(self):
        return OrderedDict((f"layer_{index}", {0: "batch", 1: "sequence"}) for index in range(3))

    def flatten_output_collection_property(self, name, field):
        return {f"layer_{index}": tensor for index, tensor in enumerate(field)}


def test_values_override_holds_while_the_model_is_exported_and_validated(bert_model, path):
    """An item set by `values_override` affects the file and the reference, and is restored."""
    config = HiddenStates(bert_model.config)
    file = export_and_read(config, bert_model, path)
    assert list(axes(file.outputs)) == ["layer_0", "layer_1", "layer_2"]
    assert bert_model.config.output_hidden_states is False
    validate(config, bert_model, path)
    assert bert_model.config.output_hidden_states is False


def test_without_values_override_the_outputs_are_missing(bert_model, path):
    """The same configuration without `values_override` is refused: the model does not return the declared outputs."""

    class Custom(HiddenStates):
        values_override = None

    with pytest.raises(ValueError, match="layer_0, layer_1, layer_2 are declared, but the model returns"):
        export_and_read(Custom(bert_model.config), bert_model, path)


class BareDecoder(OnnxConfigWithPast):
    """A decoder whose configuration lacks the usual name for the number of layers."""

    @property
    def inputs(self):
        inputs = OrderedDict(input_ids={0: "batch", 1: "sequence"})
        self.fill_with_past_key_values_(inputs, direction="inputs")
        inputs["attention_mask"] = {0: "batch", 1: "past_sequence + sequence"}
        return inputs


def test_num_layers_decides_the_number_of_caches(gpt2, path):
    """Without the override the error names the property; with it the file has a pair of caches for each layer."""

    class Custom(BareDecoder):
        @property
        def num_layers(self):
            return self._config.n_layer

    with pytest.raises(AttributeError, match=r"GPT2Config has no num_layers .*override the property num_layers"):
        export_and_read(BareDecoder.with_past(gpt2.config), gpt2, path)
    config = Custom.with_past(gpt2.config)
    file = export_and_read(config, gpt2, path)
    assert sum("past_key_values" in name for name in axes(file.inputs)) == 2 * gpt2.config.n_layer
    validate(config, gpt2, path)


def test_num_attention_heads_decides_the_shape_of_the_caches(path):
    """A decoder whose caches have fewer heads than its attention works only with an override."""
    from transformers import LlamaConfig, LlamaModel

    class Plain(BareDecoder):
        @property
        def num_layers(self):
            return self._config.num_hidden_layers

    class Custom(Plain):
        @property
        def num_attention_heads(self):
            return self._config.num_key_value_heads

    sizes = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "max_position_embeddings": 48}
    heads = {"num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2}
    model_config = LlamaConfig(**sizes, **heads, attn_implementation="eager")
    model, tokenizer = LlamaModel(model_config).eval(), preprocessor("gpt2")
    with pytest.raises(ExportError):
        export(tokenizer, model, Plain.with_past(model_config), 13, path)
    config = Custom.with_past(model_config)
    export(tokenizer, model, config, 13, path)
    assert axes(read(path).inputs)["past_key_values.0.key"] == ("batch", 2, "past_sequence", 8)
    validate_model_outputs(config, tokenizer, model, path, list(config.outputs), 1e-4)


@pytest.mark.parametrize("architecture", ["bloom", "gpt2", "gpt-neo", "gptj", "llama"])
def test_a_model_without_a_padding_token_classifies_at_the_last_token(architecture, path):
    """For any tokens, even id 0, the file gives the answer of the untouched model.

    The model gets one text at a time, because it refuses several; the control has an id for padding, and differs.
    """
    import torch

    model, tokenizer = tiny_model(architecture, "sequence-classification"), preprocessor("gpt2")
    ids = torch.tensor([[5, 0, 7, 11, 0], [0, 9, 23, 0, 0], [3, 14, 15, 9, 2]])
    inputs = {"input_ids": ids.numpy(), "attention_mask": np.ones(ids.shape, np.int64)}

    def logits(padding):
        model.config.pad_token_id = padding
        config = constructor(architecture, "sequence-classification")(model.config)
        export(tokenizer, model, config, 17, path)
        assert model.config.pad_token_id == padding
        return OnnxSession(path).run(inputs)["logits"]

    file = logits(None)
    with torch.no_grad():
        untouched = torch.cat([model(input_ids=row[None]).logits for row in ids]).numpy()
    np.testing.assert_allclose(file, untouched, atol=1e-5)
    assert np.abs(logits(0)[:2] - untouched[:2]).max() > 1e-3
    model.config.pad_token_id = None
    with pytest.raises((AssertionError, ValueError), match="no padding token"):
        model(input_ids=ids)


@pytest.mark.parametrize("length", [1, 2])
def test_the_length_at_which_a_decoder_with_a_past_is_traced(length, path):
    """Traced at one token, bart of transformers 4 drops the mask of several tokens: silently wrong, and detected."""
    from parity.reference import answers
    from parity.samples import SampleSource
    from parity.shapes import choose_samples
    from parity.validation import compare, pool_of

    class Custom(BartOnnxConfig):
        def generate_dummy_inputs(self, *args, **kwargs):
            inputs = dict(super().generate_dummy_inputs(*args, **kwargs))
            left_out = inputs["decoder_input_ids"].shape[1] - length
            for name in ("decoder_input_ids", "decoder_attention_mask"):
                inputs[name] = inputs[name][:, left_out:]
            return inputs

    model, tokenizer = tiny_model("bart", "seq2seq-lm"), preprocessor("bart")
    config = Custom(model.config, task="seq2seq-lm", use_past=True)
    export(tokenizer, model, config, 17, path)

    # At lengths that no tokenizer derives from the traced one, as in the command.
    source = SampleSource(config, tokenizer, model.config)
    samples = choose_samples(source, longest=config.longest_sequence(model))
    verdict = compare(OnnxSession(path).run, config, pool_of(source, samples, answers(model, config, samples)))
    if length == 1 and not at_least("transformers", "5"):
        with pytest.raises(ValueMismatch, match="logits"):
            verdict.raise_on_failure()
    else:
        verdict.raise_on_failure()
        assert verdict.ratios()


class Pooled(BertOnnxConfig):
    """A configuration with the pooler's output, which is a tanh."""

    @property
    def outputs(self):
        return OrderedDict(pooler_output={0: "batch"})


def test_a_patching_spec_holds_during_the_export_only(bert_model, path):
    """The file has the custom op; the original is restored, so validation can compare the two."""
    import torch

    original = torch.tanh
    export_and_read(Pooled(bert_model.config), bert_model, path)
    assert "Tanh" in operators(path)
    config = Pooled(bert_model.config, patching_specs=[PatchingSpec(o=torch, name="tanh", custom_op=torch.sin)])
    export_and_read(config, bert_model, path)
    assert {"Sin", "Tanh"} & operators(path) == {"Sin"}
    assert torch.tanh is original
    with pytest.raises(ValueMismatch, match="pooler_output"):
        validate(config, bert_model, path)


def test_a_patching_spec_wraps_both_ops():
    """`op_wrapper` is applied to the inserted and to the restored op."""

    class Owner:
        @staticmethod
        def double(x):
            return 2 * x

    spec = PatchingSpec(o=Owner, name="double", custom_op=lambda x: x * x, op_wrapper=staticmethod)
    config = BertOnnxConfig(None, patching_specs=[spec])
    config.patch_ops()
    assert (Owner().double(5), isinstance(Owner.__dict__["double"], staticmethod)) == (25, True)
    config.restore_ops()
    assert (Owner().double(5), isinstance(Owner.__dict__["double"], staticmethod)) == (10, True)


def test_patch_ops_and_restore_ops_surround_the_trace(bert_model, path):
    """The file has the effect of an overridden `patch_ops`, and `restore_ops` undoes it; each is called once."""
    from torch.nn import Sigmoid, Tanh

    called = []

    class Custom(Pooled):
        def patch_ops(self):
            called.append("patch")
            bert_model.pooler.activation = Sigmoid()

        def restore_ops(self):
            called.append("restore")
            bert_model.pooler.activation = Tanh()

    export_and_read(Custom(bert_model.config), bert_model, path)
    assert called == ["patch", "restore"]
    assert {"Sigmoid", "Tanh"} & operators(path) == {"Sigmoid"}


def test_default_onnx_opset_is_the_opset_of_the_file(bert_model, path):
    """An overridden `default_onnx_opset`, passed to `export`, is the opset of the file."""

    class Custom(BertOnnxConfig):
        default_onnx_opset = 16

    config = Custom(bert_model.config)
    assert export_and_read(config, bert_model, path, config.default_onnx_opset).opset == 16


def test_atol_for_validation_decides(bert_model, path):
    """The same file passes under one configuration's tolerance and fails under a stricter one."""

    class Strict(BertOnnxConfig):
        atol_for_validation = 1e-12

    loose, strict = BertOnnxConfig(bert_model.config), Strict(bert_model.config)
    export_and_read(loose, bert_model, path)
    validate(loose, bert_model, path, loose.atol_for_validation)
    with pytest.raises(ValueMismatch, match="by more than 1e-12"):
        validate(strict, bert_model, path, strict.atol_for_validation)


def test_complete_inputs_becomes_part_of_the_graph(bert_model, path):
    """Arguments computed by `complete_inputs` need no input: the file answers like the model with them."""
    import torch

    class Custom(BertOnnxConfig):
        @property
        def inputs(self):
            return OrderedDict(input_ids={0: "batch", 1: "sequence"})

        def complete_inputs(self, inputs, parameters):
            assert "token_type_ids" in parameters
            ids = inputs["input_ids"]
            return {"input_ids": ids, "token_type_ids": ids.new_ones(ids.shape)}

    config = Custom(bert_model.config)
    export_and_read(config, bert_model, path)
    validate(config, bert_model, path)
    ids = torch.tensor([[9, 8, 7]])
    with torch.no_grad():
        first, second = (
            bert_model(ids, token_type_ids=torch.full_like(ids, kind)).last_hidden_state for kind in (0, 1)
        )
    got = OnnxSession(path).run({"input_ids": ids.numpy()})["last_hidden_state"]
    np.testing.assert_allclose(got, second.numpy(), rtol=0, atol=1e-5)
    assert (first - second).abs().max() > 0.1


class Blind(BertOnnxConfig):
    """Takes token types and ignores them."""

    def complete_inputs(self, inputs, parameters):
        return {name: tensor for name, tensor in inputs.items() if name != "token_type_ids"}


def test_dead_inputs_stay_inputs_of_the_file(bert_model, path):
    """An input that no output depends on is refused, unless `dead_inputs` names it: then the file has it."""

    class Custom(Blind):
        dead_inputs = {"token_type_ids": "never read"}  # noqa: RUF012

    with pytest.raises(ExportError, match=r"input names: .*should be input_ids, attention_mask, token_type_ids"):
        export_and_read(Blind(bert_model.config), bert_model, path)
    config = Custom(bert_model.config)
    file = export_and_read(config, bert_model, path)
    assert axes(file.inputs) == dict.fromkeys(["input_ids", "attention_mask", "token_type_ids"], ("batch", "sequence"))
    validate(config, bert_model, path)
    with pytest.raises(SessionError, match="should also have token_type_ids"):
        OnnxSession(path).run({name: np.ones((1, 3), np.int64) for name in ("input_ids", "attention_mask")})
