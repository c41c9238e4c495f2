"""`export` and `validate_model_outputs` keep the model unchanged, write the requested file, have no soft limits."""

import itertools
import re
import shutil
from collections import OrderedDict

import numpy as np
import onnx
import pytest

from parity import __version__
from parity.architectures.bert import BertOnnxConfig
from parity.architectures.gpt2 import GPT2OnnxConfig
from parity.environment import at_least, version_of
from parity.errors import ExportError, NameMismatch, OutputError, UsageError
from parity.fixtures.checkpoints import tiny_model
from parity.fixtures.preprocessors import preprocessor
from parity.judge.contract import read
from parity.onnx import PatchingSpec, export, validate_model_outputs
from parity.onnx.features import constructor
from parity.onnx_files import data_file, gather_external_data
from parity.sessions import OnnxSession

# transformers 4 fixes the attention when a model is built; a model with sdpa is refused below opset 14.
SWITCHES = at_least("transformers", "5")
BERT_INPUTS = ["input_ids", "attention_mask", "token_type_ids"]


@pytest.fixture(scope="module")
def bert_file(bert_model, tmp_path_factory):
    """The tiny BertModel, exported at opset 13."""
    path = tmp_path_factory.mktemp("bert") / "model.onnx"
    export(preprocessor("bert"), bert_model, BertOnnxConfig(bert_model.config), 13, path)
    return path


def state(model):
    """Everything that a caller can see of a model: flags and configuration of each module, weights, ties, device."""
    tensors = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}
    return {
        "training": {name: module.training for name, module in model.named_modules()},
        "configuration": {
            name: (dict(module.config.__dict__), module.config.to_dict(), module.config._attn_implementation)
            for name, module in model.named_modules()
            if hasattr(module, "config")
        },
        "weights": {name: (t.dtype, t.requires_grad, t.detach().numpy().tobytes()) for name, t in tensors.items()},
        "ties": {name: t.data_ptr() for name, t in tensors.items()},
        "device": model.device,
        "attributes": {name: sorted(module.__dict__) for name, module in model.named_modules()},
        "hooks": {name: len(module._forward_hooks) for name, module in model.named_modules()},
    }


def test_export_returns_the_two_lists(bert_model, tmp_path):
    """The inputs are in the order of the model's `forward`, the outputs in the configuration's."""

    class Reversed(BertOnnxConfig):
        inputs = property(lambda self: OrderedDict(reversed(super().inputs.items())))

    config, path = Reversed(bert_model.config), tmp_path / "model.onnx"
    assert export(preprocessor("bert"), bert_model, config, 13, path) == (BERT_INPUTS, ["last_hidden_state"])
    assert [value.name for value in read(path).inputs] == BERT_INPUTS[::-1]


@pytest.mark.parametrize(
    ("mode", "attention", "opset"),
    [("eval", "eager", 14), ("train", "sdpa", 13), ("partly frozen", "sdpa", 13), ("partly frozen", "sdpa", 14)],
)
def test_export_leaves_the_model_as_it_was(mode, attention, opset, tmp_path):
    """Flags of every module, configuration, attention implementation, weights and ties stay."""
    model = tiny_model("gpt2", "causal-lm", attention=attention).train(mode != "eval")
    if mode == "partly frozen":
        model.transformer.h[0].eval()
        model.transformer.wte.requires_grad_(False)
    before = state(model)
    assert before["ties"]["lm_head.weight"] == before["ties"]["transformer.wte.weight"]
    assert model.config.use_cache is True
    config = GPT2OnnxConfig(model.config, task="causal-lm")
    if attention == "sdpa" and opset < 14 and not SWITCHES:
        with pytest.raises(ExportError, match="its attention implementation is sdpa, should be eager"):
            export(preprocessor("gpt2"), model, config, opset, tmp_path / "model.onnx")
    else:
        export(preprocessor("gpt2"), model, config, opset, tmp_path / "model.onnx")
    assert state(model) == before


def test_a_model_in_train_mode_is_exported_without_dropout(bert_file, tmp_path):
    """The file of a model in train mode is the file of the same model in eval mode."""
    model, path = tiny_model("bert").train(), tmp_path / "model.onnx"
    export(preprocessor("bert"), model, BertOnnxConfig(model.config), 13, path)
    assert path.read_bytes() == bert_file.read_bytes()


@pytest.mark.parametrize("change", ["weight", "tie", "flag", "use_cache", "attention"])
def test_a_change_of_the_model_is_seen(change):
    """The comparison in these tests detects each of these changes."""
    import torch

    model = tiny_model("gpt2", "causal-lm", attention="sdpa")
    before = state(model)
    with torch.no_grad():
        if change == "weight":
            model.transformer.h[1].ln_1.bias[0] += 1e-7
        elif change == "tie":
            model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
        elif change == "flag":
            model.transformer.h[1].attn.train()
        elif change == "use_cache":
            model.config.use_cache = False
        else:
            model.config._attn_implementation_internal = "eager"
    assert state(model) != before


def raise_not_implemented(x):
    """Replaces an operator by one that the exporter cannot handle."""
    raise NotImplementedError("not today")


def failing(model):
    """A configuration whose export fails during the trace."""
    import torch

    return BertOnnxConfig(
        model.config, patching_specs=[PatchingSpec(o=torch, name="tanh", custom_op=raise_not_implemented)]
    )


def test_a_failing_export_leaves_the_model_as_it_was(tmp_path):
    """If the trace raises, the model is unchanged, the patched op is restored, and nothing is left on disk."""
    import torch

    model, original = tiny_model("bert", attention="sdpa" if SWITCHES else "eager").train(), torch.tanh
    before = state(model)
    with pytest.raises(ExportError, match="opset 13: the exporter failed: NotImplementedError: not today"):
        export(preprocessor("bert"), model, failing(model), 13, tmp_path / "new" / "model.onnx")
    assert state(model) == before
    assert torch.tanh is original
    assert list(tmp_path.iterdir()) == []


def test_a_failing_export_leaves_the_file_that_stood_there(bert_model, tmp_path):
    """A good file stays unchanged, with nothing next to it."""
    path = tmp_path / "model.onnx"
    export(preprocessor("bert"), bert_model, BertOnnxConfig(bert_model.config), 13, path)
    before = path.read_bytes()
    with pytest.raises(ExportError):
        export(preprocessor("bert"), bert_model, failing(bert_model), 13, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_good_export_replaces_the_file_that_stood_there(bert_model, bert_file, tmp_path):
    """The file appears only under its own name, without temporary files."""
    path = tmp_path / "model.onnx"
    path.write_text("an old file")
    export(preprocessor("bert"), bert_model, BertOnnxConfig(bert_model.config), 13, path)
    assert path.read_bytes() == bert_file.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


def test_an_output_that_cannot_be_written_is_an_os_error(bert_model, bert_file):
    """A path below a file is refused by name."""
    with pytest.raises(OutputError, match=re.escape(f"output {bert_file / 'model.onnx'}: cannot be written")):
        export(preprocessor("bert"), bert_model, BertOnnxConfig(bert_model.config), 13, bert_file / "model.onnx")


@pytest.mark.parametrize("opset", range(11, 21))
def test_the_file_has_the_opset_that_was_asked_for(bert_model, opset, tmp_path):
    """From 11 to 20 the file has the requested opset, and ONNX Runtime loads it."""
    path = tmp_path / "model.onnx"
    export(preprocessor("bert"), bert_model, BertOnnxConfig(bert_model.config), opset, path)
    assert [(entry.domain, entry.version) for entry in onnx.load(path).opset_import] == [("", opset)]
    assert OnnxSession(path).input_names == tuple(BERT_INPUTS)


@pytest.mark.parametrize("opset", [-1, 5, 10, 21, 99])
def test_any_other_opset_is_refused(bert_model, opset, tmp_path):
    """An opset out of range is a ValueError with the range, before any work, and nothing is written."""
    with pytest.raises(ValueError, match=f"opset: got {opset}, should be 11 to 20"):
        export(preprocessor("bert"), bert_model, BertOnnxConfig(bert_model.config), opset, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_sdpa_model_keeps_its_attention_from_opset_14(tmp_path):
    """Below 14, where sdpa cannot be lowered, eager attention is exported; the metadata says which it is."""
    model = tiny_model("bert", attention="sdpa")
    for opset, attention in ((13, "eager"), (14, "sdpa")) if SWITCHES else ((14, "sdpa"),):
        path, config = tmp_path / f"{opset}.onnx", BertOnnxConfig(model.config)
        export(preprocessor("bert"), model, config, opset, path)
        assert read(path).metadata["attention"] == attention
        validate_model_outputs(config, preprocessor("bert"), model, path, list(config.outputs), 1e-4)


def test_equal_inputs_give_byte_identical_files(bert_file, tmp_path):
    """Exports of two equal models are equal; another weight gives another file."""
    model, path = tiny_model("bert"), tmp_path / "again.onnx"
    export(preprocessor("bert"), model, BertOnnxConfig(model.config), 13, path)
    assert path.read_bytes() == bert_file.read_bytes()
    other = tiny_model("bert", seed=1)
    export(preprocessor("bert"), other, BertOnnxConfig(other.config), 13, path)
    assert path.read_bytes() != bert_file.read_bytes()


def test_the_file_says_what_made_it(bert_file):
    """`metadata_props` has parity, torch, transformers, the model's type, feature, opset and attention, each once."""
    properties = [(entry.key, entry.value) for entry in onnx.load(bert_file).metadata_props]
    assert sorted(properties) == [
        ("attention", "eager"),
        ("feature", "default"),
        ("model_type", "bert"),
        ("opset", "13"),
        ("parity", __version__),
        ("torch", version_of("torch")),
        ("transformers", version_of("transformers")),
    ]


def test_the_file_has_the_names_dtypes_and_axes_that_were_declared(bert_file):
    """Order, dtypes and dynamic axes are as declared when read back."""
    file = read(bert_file)
    tokens = ("batch", "sequence")
    assert [(v.name, v.dtype, v.axes) for v in file.inputs] == [(name, "int64", tokens) for name in BERT_INPUTS]
    assert [(v.name, v.dtype, v.axes) for v in file.outputs] == [("last_hidden_state", "float32", (*tokens, 32))]


class Sentimental(BertOnnxConfig):
    """Its tokenizer returns tensors that no BERT takes."""

    def generate_dummy_inputs(self, preprocessor, **options):
        inputs = super().generate_dummy_inputs(preprocessor, **options)
        return {**inputs, "sentiment": inputs["input_ids"]}


def test_inputs_that_the_model_does_not_take_are_refused(bert_model, tmp_path):
    """A declared input without a parameter in `forward` is a ValueError that names it."""

    class Custom(Sentimental):
        inputs = property(lambda self: {**super().inputs, "sentiment": {0: "batch", 1: "sequence"}})

    with pytest.raises(UsageError, match=r"sentiment declared by Custom, but BertModel\.forward does not take them"):
        export(preprocessor("bert"), bert_model, Custom(bert_model.config), 13, tmp_path / "model.onnx")


def test_what_only_the_tokenizer_makes_is_left_out(bert_model, bert_file, tmp_path, caplog):
    """Tensors that are neither declared nor parameters of `forward` change nothing, and the log lists them."""
    caplog.set_level("INFO", "parity.onnx")
    path = tmp_path / "model.onnx"
    assert export(preprocessor("bert"), bert_model, Sentimental(bert_model.config), 13, path)[0] == BERT_INPUTS
    assert path.read_bytes() == bert_file.read_bytes()
    assert "Left out, because BertModel does not take them: sentiment" in caplog.text


def test_the_tolerance_is_a_hard_limit(bert_model, bert_file):
    """A tolerance below float32 raises ValueError with output, count, worst difference and its index."""
    config = BertOnnxConfig(bert_model.config)
    arguments = (config, preprocessor("bert"), bert_model, bert_file, ["last_hidden_state"])
    validate_model_outputs(*arguments, 1e-5)
    message = (
        r"batch 3 × sequence 9: last_hidden_state: \d+ of 864 values differ by more than 1e-12 \([\d.]+ %\);"
        r" worst difference [\d.]+e-0\d at index \([0-2], [0-8], \d+\): got \S+, should be \S+"
    )
    with pytest.raises(ValueError, match=message):
        validate_model_outputs(*arguments, 1e-12)


def test_the_longest_sequence_is_what_the_position_table_holds(gpt2):
    """A padding token shortens only a table that starts after it, as RoBERTa's does."""
    padded = tiny_model("gpt2")
    padded.config.pad_token_id = 95
    tried = (gpt2, padded, tiny_model("roberta"))
    assert [constructor(m.config.model_type, "default")(m.config).longest_sequence(m) for m in tried] == [48, 48, 40]


def test_output_names_that_the_model_does_not_return_are_a_value_error(bert_model, bert_file):
    """The message has the wrong name and the names that the model returns."""
    with pytest.raises(NameMismatch, match="logits in the file, but the reference model returns last_hidden_state"):
        validate_model_outputs(
            BertOnnxConfig(bert_model.config), preprocessor("bert"), bert_model, bert_file, ["logits"], 1e-4
        )
    assert issubclass(NameMismatch, ValueError)


def test_scattered_weights_are_gathered_into_one_file(bert_model, bert_file, tmp_path):
    """A model over 2 GB is exported with a file per tensor: they become one, and a copy of the directory works."""
    scattered = tmp_path / "scattered" / "model.onnx"
    scattered.parent.mkdir()
    onnx.save_model(
        onnx.load(bert_file), scattered, save_as_external_data=True, all_tensors_to_one_file=False, size_threshold=0
    )
    assert len(list(scattered.parent.iterdir())) > 20
    gather_external_data(scattered, data_file(scattered).name)
    assert {path.name for path in scattered.parent.iterdir()} == {"model.onnx", "model.onnx_data"}
    copied = shutil.copytree(scattered.parent, tmp_path / "copied") / "model.onnx"
    shutil.rmtree(scattered.parent)
    inputs = {name: np.ones((3, 5), np.int64) for name in BERT_INPUTS}
    results = [OnnxSession(path).run(inputs)["last_hidden_state"] for path in (bert_file, copied)]
    # Weights read from a separate file are laid out differently in memory, so results may round differently.
    assert np.abs(results[0] - results[1]).max() < 1e-5
    assert np.ptp(results[0]) > 1


def test_a_file_that_holds_its_weights_is_left_alone(bert_file, tmp_path):
    """A file without external data stays unchanged."""
    path = shutil.copy(bert_file, tmp_path / "model.onnx")
    gather_external_data(path, "model.onnx_data")
    assert path.read_bytes() == bert_file.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


class Undirected(GPT2OnnxConfig):
    """GPT-2 as exported by 4.46.3: positions count from the first token of the row, even if it is padding."""

    def complete_inputs(self, inputs, parameters):
        return dict(inputs)


@pytest.fixture(scope="module")
def gpt2():
    """A tiny GPT2LMHeadModel."""
    return tiny_model("gpt2", "causal-lm")


@pytest.fixture(scope="module")
def gpt2_sessions(gpt2, tmp_path_factory):
    """(configuration class, with past) → the tiny GPT2LMHeadModel in ONNX Runtime."""
    sessions, path = {}, tmp_path_factory.mktemp("gpt2") / "model.onnx"
    for kind, use_past in itertools.product((GPT2OnnxConfig, Undirected), (False, True)):
        config = kind(gpt2.config, task="causal-lm", use_past=use_past)
        export(preprocessor("gpt2"), gpt2, config, 13, path)
        sessions[kind, use_past] = OnnxSession(path)
    return sessions


ROWS = ([11, 12, 13, 14, 15, 16, 17], [21, 22, 23, 24])


@pytest.fixture(scope="module")
def padded_rows(gpt2):
    """Two rows padded on the left to seven tokens, their mask, and the eager logits of each row alone, unpadded."""
    import torch

    ids = np.array([ROWS[0], [0, 0, 0, *ROWS[1]]])
    mask = np.array([[1] * 7, [0, 0, 0, 1, 1, 1, 1]])
    with torch.no_grad():
        return ids, mask, [gpt2(torch.tensor([row])).logits[0].numpy() for row in ROWS]


def run_in_steps(session, ids, mask, first):
    """The logits of a file with past, run on the first tokens with an empty past and then on the rest."""
    feed = {name: np.zeros((len(ids), 4, 0, 8), np.float32) for name in session.input_names if "." in name}
    logits = []
    for part in (slice(None, first), slice(first, None)):
        got = session.run({**feed, "input_ids": ids[:, part], "attention_mask": mask[:, : part.stop]})
        logits.append(got["logits"])
        feed = {name.replace("present", "past_key_values"): value for name, value in got.items() if "." in name}
    return np.concatenate(logits, axis=1)


def distance(logits, reference):
    """The largest difference at the real positions of each row, which come last."""
    return max(np.abs(got[-len(row) :] - row).max() for got, row in zip(logits, reference, strict=True))


def test_left_padding_does_not_move_the_positions(gpt2_sessions, padded_rows):
    """Every real position of a left-padded row has the logits of the unpadded row, unlike in the old file."""
    ids, mask, reference = padded_rows
    inputs = {"input_ids": ids, "attention_mask": mask}
    assert distance(gpt2_sessions[GPT2OnnxConfig, False].run(inputs)["logits"], reference) < 1e-5
    assert distance(gpt2_sessions[Undirected, False].run(inputs)["logits"], reference) > 0.1


@pytest.mark.parametrize("first", [1, 4, 6])
def test_left_padding_does_not_move_the_positions_after_a_past(gpt2_sessions, padded_rows, first):
    """The same holds if the row is split into two steps at any place, even inside its padding."""
    ids, mask, reference = padded_rows
    assert distance(run_in_steps(gpt2_sessions[GPT2OnnxConfig, True], ids, mask, first), reference) < 1e-5
    assert distance(run_in_steps(gpt2_sessions[Undirected, True], ids, mask, first), reference) > 0.1


def test_the_position_ids_are_those_of_generate(gpt2, padded_rows):
    """At each step of `generate`, the real positions get the ids that the graph derives from the same mask."""
    import torch

    (ids, mask), calls = map(torch.from_numpy, padded_rows[:2]), []
    hook = gpt2.register_forward_pre_hook(lambda module, args, keywords: calls.append(keywords), with_kwargs=True)
    gpt2.generate(ids, attention_mask=mask, max_new_tokens=3, do_sample=False, pad_token_id=0)
    hook.remove()
    config = GPT2OnnxConfig(gpt2.config, task="causal-lm")
    assert [keywords["input_ids"].shape[1] for keywords in calls] == [7, 1, 1]
    for keywords in calls:
        inputs = {name: keywords[name] for name in ("input_ids", "attention_mask")}
        derived = config.complete_inputs(inputs, ["attention_mask", "position_ids"])["position_ids"]
        real = keywords["attention_mask"][:, -derived.shape[1] :] == 1
        assert torch.equal(derived[real], keywords["position_ids"].expand_as(derived)[real])


@pytest.mark.parametrize(("batch", "length"), [(1, 2), (3, 9), (2, 31)])
def test_unpadded_results_are_those_of_the_old_file(gpt2_sessions, batch, length):
    """Without padding the derived position ids change nothing, in one step or two."""
    ids = np.random.default_rng(length).integers(1, 96, (batch, length))
    mask, kinds = np.ones_like(ids), (GPT2OnnxConfig, Undirected)
    inputs = {"input_ids": ids, "attention_mask": mask}
    whole = [gpt2_sessions[kind, False].run(inputs)["logits"] for kind in kinds]
    steps = [run_in_steps(gpt2_sessions[kind, True], ids, mask, length // 2) for kind in kinds]
    assert [float(np.abs(one - other).max()) < 1e-5 for one, other in (whole, steps)] == [True, True]


@pytest.mark.parametrize("use_past", [False, True])
def test_a_decoder_without_a_mask_input_takes_every_token_for_real(gpt2, use_past, tmp_path):
    """If a configuration declares no mask, the file uses a mask of ones for past and tokens."""

    class Custom(GPT2OnnxConfig):
        inputs = property(lambda self: {n: axes for n, axes in super().inputs.items() if n != "attention_mask"})

    config, path = Custom(gpt2.config, task="causal-lm", use_past=use_past), tmp_path / "model.onnx"
    _, outputs = export(preprocessor("gpt2"), gpt2, config, 13, path)
    assert [value.name for value in read(path).inputs] == list(config.inputs)
    validate_model_outputs(config, preprocessor("gpt2"), gpt2, path, outputs, 1e-4)
