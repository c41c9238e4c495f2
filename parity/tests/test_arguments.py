"""The Python API refuses each wrong argument by name; the caller's settings do not affect a file."""

import functools

import pytest

from parity import neuron, torchscript
from parity.errors import UsageError
from parity.fixtures import subjects
from parity.fixtures.checkpoints import tiny_model
from parity.onnx import export, validate_model_outputs


@pytest.fixture(scope="module")
def bert():
    return subjects.subject("bert", "default")


@pytest.fixture
def onnx_arguments(bert, tmp_path):
    """The arguments of `parity.onnx.export`, for tests to change."""
    return {
        "preprocessor": bert.source.preprocessor,
        "model": bert.model,
        "config": bert.onnx_config,
        "opset": 14,
        "output": tmp_path / "model.onnx",
    }


def meta_model():
    return tiny_model("bert").to("meta")


def linear_model():
    import torch

    return torch.nn.Linear(2, 2)


def quantised_model():
    import torch

    model = tiny_model("bert")
    model.quantised = torch.ao.nn.quantized.Linear(2, 2)
    return model


def compiled_model():
    """Like a result of `torch.compile`, whose import takes seconds."""
    import torch

    model = torch.nn.Module()
    model._orig_mod = tiny_model("bert")
    return model


def parallel_model():
    import torch

    return torch.nn.DataParallel(tiny_model("bert"))


MODELS = {
    "Linear": (linear_model, "model: got Linear, should be a PyTorch model of transformers"),
    "compiled": (compiled_model, r"is compiled by torch.compile, .*give model._orig_mod"),
    "parallel": (parallel_model, "is a DataParallel, should be the module inside; give model.module"),
    "meta": (meta_model, "weights on the device meta, which hold no values; load it with from_pretrained"),
    "quantised": (quantised_model, r"that torch.ao has quantised \(Linear\).*quantise the file"),
    "float64": (lambda: tiny_model("bert").double(), r"has float64 weights.*give model.float\(\)"),
}


@pytest.mark.parametrize("kind", MODELS)
def test_models_that_cannot_be_traced(bert, onnx_arguments, tmp_path, kind):
    """All three interfaces refuse them, with advice on what to pass instead; nothing is written."""
    make, message = MODELS[kind]
    model = make()
    with pytest.raises(UsageError, match=message):
        export(**{**onnx_arguments, "model": model})
    for function in (torchscript.export, functools.partial(neuron.trace, emulate=True)):
        with pytest.raises(UsageError, match=message):
            function(model, bert.source.dummy, tmp_path / "model.pt", onnx_config=bert.onnx_config)
    assert list(tmp_path.iterdir()) == []


ARGUMENTS = [
    ("config", None, "config: got NoneType, should be an OnnxConfig"),
    ("opset", None, "opset: got None, should be a whole number"),
    ("opset", True, "opset: got True, should be a whole number"),
    ("output", None, "output: got NoneType, should be the path of a file"),
    ("preprocessor", None, "preprocessor: is None, should be the checkpoint's tokenizer"),
    ("device", "nonsense", "device: got 'nonsense', should be cpu or cuda"),
    ("device", None, "device: got None, should be cpu or cuda"),
    ("device", 3, "device: got 3, should be cpu or cuda"),
]


@pytest.mark.parametrize(("name", "value", "message"), ARGUMENTS)
def test_arguments_of_an_export(onnx_arguments, tmp_path, name, value, message):
    """Each is named, with its value and the expected value."""
    with pytest.raises(UsageError, match=message):
        export(**{**onnx_arguments, name: value})
    assert list(tmp_path.iterdir()) == []


def test_cuda_that_is_not_here(monkeypatch):
    """If torch finds no device, that is the reason."""
    import torch

    from parity.onnx.exporter import TraceExporter

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="device: got cuda, and torch finds no CUDA device here; give cpu"):
        TraceExporter("cuda")


def test_arguments_of_a_validation(bert, onnx_arguments):
    """Tolerance, configuration and file."""
    export(**onnx_arguments)
    arguments = [bert.onnx_config, bert.source.preprocessor, bert.model, onnx_arguments["output"]]
    for atol in ("1e-5", None, -1, float("nan"), True):
        with pytest.raises(UsageError, match=r"atol: got .*, should be a number ≥ 0 such as 1e-5"):
            validate_model_outputs(*arguments, list(bert.onnx_config.outputs), atol)
    for names in (3.5, b"x", "last_hidden_state", [3], None):
        with pytest.raises(UsageError, match=r"onnx_named_outputs: got .*, should be a list of names"):
            validate_model_outputs(*arguments, names, 1e-5)
    with pytest.raises(UsageError, match="onnx_model: got NoneType, should be the path of a file"):
        validate_model_outputs(*arguments[:3], None, list(bert.onnx_config.outputs), 1e-3)
    validate_model_outputs(*arguments, list(bert.onnx_config.outputs), 1e-3)


EXAMPLES = [
    (None, "example_inputs: got NoneType, should be a mapping of names to tensors"),
    (3, "example_inputs: got int, should be a mapping"),
    ("text", "example_inputs: got str, should be a mapping"),
    ({"input_ids": None}, "example_inputs: input_ids is None, should be a torch tensor; leave it out"),
    ([None], "example_inputs: 0 is None"),
]


@pytest.mark.parametrize(("example", "message"), EXAMPLES)
def test_examples_of_a_trace(bert, example, message):
    """A value that is no tensor with data is named."""
    with pytest.raises(UsageError, match=message):
        torchscript.export(bert.model, example)


def test_examples_without_values(bert):
    """Tensors on the device meta."""
    example = {name: tensor.to("meta") for name, tensor in bert.source.dummy.items()}
    with pytest.raises(UsageError, match="input_ids is on the device meta, should have values"):
        torchscript.export(bert.model, example)


def test_other_arguments_of_traces(bert):
    """A wrong type of configuration, trace, model and ScriptModule."""
    with pytest.raises(UsageError, match="onnx_config: got str, should be an OnnxConfig"):
        torchscript.export(bert.model, bert.source.dummy, onnx_config="bert")
    with pytest.raises(UsageError, match="traced: got str, should be what export or load returns"):
        torchscript.verdict("model.pt", bert.model)
    with pytest.raises(UsageError, match="model: got str, should be a PyTorch model"):
        torchscript.untie("model")
    with pytest.raises(UsageError, match="module: got str, should be a ScriptModule"):
        neuron.coverage("model.pt")


def in_float64(function):
    import torch

    torch.set_default_dtype(torch.float64)
    try:
        function()
        assert torch.get_default_dtype() is torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def in_autocast(function):
    import torch

    with torch.autocast("cpu", dtype=torch.bfloat16):
        function()
        assert torch.is_autocast_enabled() or torch.is_autocast_cpu_enabled()


@pytest.mark.filterwarnings("ignore:.*is_autocast:DeprecationWarning")
@pytest.mark.parametrize("setting", [in_float64, in_autocast])
def test_what_the_caller_has_set(bert, onnx_arguments, tmp_path, setting):
    """Autocast and default dtype do not change the file or the proof, and stay set."""
    export(**onnx_arguments)
    again = {**onnx_arguments, "output": tmp_path / "again.onnx"}
    setting(functools.partial(export, **again))
    assert again["output"].read_bytes() == onnx_arguments["output"].read_bytes()
    setting(functools.partial(torchscript.export, bert.model, bert.source.dummy, tmp_path / "model.pt"))
    assert (tmp_path / "model.pt").is_file()


@pytest.mark.parametrize(("model_type", "part"), [("bert", "encoder"), ("clip", "text_model")])
def test_a_call_leaves_the_configuration_as_it_was(model_type, part):
    """A model, or a part with its own configuration, that notes something there; called directly, it keeps the note."""
    from parity.traceable import call

    subject = subjects.fresh_subject(model_type, "default")
    model, inputs = subject.fresh_model().eval(), subject.source.generate(seed=1).inputs
    config = getattr(model, part).config
    assert (config is model.config) == (model_type == "bert")
    own = config.attention_dropout = 0.25

    def note(module, arguments, options):
        config.attention_dropout = own + 1

    getattr(model, part).register_forward_pre_hook(note, with_kwargs=True)
    call(model, subject.onnx_config, inputs)
    assert config.attention_dropout == own
    model(**inputs)
    assert config.attention_dropout == own + 1
