"""`parity.torchscript.export` and `load`: tracing, log, proof and refusals."""

import re
import subprocess
import sys
from collections import OrderedDict

import pytest

from parity.errors import DtypeMismatch, ExportError, OutputError, SessionError, UsageError, ValueMismatch
from parity.fixtures import subjects
from parity.fixtures.checkpoints import tiny_model
from parity.fixtures.trace_verdicts import is_proven
from parity.registry import architecture

CELLS = [
    ("bert", "default"),
    ("bert", "masked-lm"),
    ("gpt2", "causal-lm-with-past"),
    ("t5", "seq2seq-lm"),
    ("t5", "seq2seq-lm-with-past"),
    ("vit", "image-classification"),
    # It has an autograd function in transformers 5.
    ("bloom", "default"),
]


def export(*arguments, **options):
    from parity.torchscript import export

    return export(*arguments, **options)


def bert():
    """A tiny BERT and the inputs of its declaration, by name."""
    subject = subjects.subject("bert", "default")
    return subject.fresh_model(), dict(subject.source.generate(seed=3).inputs)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("pair", CELLS, ids="-".join)
def test_file_is_equal_to_eager(pair, attention, tmp_path):
    """At the traced shape the loaded file and the model agree by the error ratio, on example and other values."""
    subject = subjects.subject(*pair)
    attention = attention if architecture(pair[0]).has_sdpa(pair[1]) else "eager"
    model = tiny_model(*pair, attention=attention)
    lines = []
    trace = export(model, subject.source.generate().inputs, tmp_path / "model.pt", feature=pair[1], say=lines.append)
    assert trace.attention == attention
    assert is_proven(trace)
    assert lines[-1] == f"At the traced shape: {trace.proof}"
    assert list(trace.outputs)[: len(subject.onnx_config.outputs)] == list(subject.onnx_config.outputs)
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


@pytest.mark.parametrize("pair", CELLS, ids="-".join)
def test_feature_is_found_by_the_class(pair):
    """By the model's class, and by whether past key values are given."""
    subject = subjects.subject(*pair)
    assert export(subject.fresh_model(), subject.source.generate().inputs, prove=False).feature == pair[1]


@pytest.fixture
def other_trace(monkeypatch):
    """A function: after it is called with a change, a changed copy of the model is traced."""
    import copy

    from parity.torchscript import trace

    original = trace._trace

    def install(change):
        def wrong(model, *arguments):
            own = copy.deepcopy(model)
            change(own)
            return original(own, *arguments)

        monkeypatch.setattr(trace, "_trace", wrong)

    return install


def test_wrong_trace_is_not_written(other_trace, tmp_path):
    """A trace with other weights is a ValueMismatch, and an existing file stays."""
    import torch

    model, inputs = bert()
    (tmp_path / "model.pt").write_text("old")
    with torch.no_grad():
        other_trace(lambda own: own.embeddings.word_embeddings.weight.mul_(1.001))
        with pytest.raises(
            ValueMismatch, match=r"at the traced shape: last_hidden_state: error ratio .* should be at most 4"
        ):
            export(model, inputs, tmp_path / "model.pt")
    assert (tmp_path / "model.pt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_wrong_dtype_is_not_written(other_trace, tmp_path):
    """A trace with float64 answers is a DtypeMismatch."""
    model, inputs = bert()
    other_trace(lambda own: own.double())
    with pytest.raises(DtypeMismatch, match="dtype float64, should be float32"):
        export(model, inputs, tmp_path / "model.pt")
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_bit_equal_is_judged_by_the_ratio_and_told(other_trace, tmp_path):
    """Weights changed by one ulp pass the ratio; the log has ratio and difference instead of bit-equal."""
    from parity.reference import move_weights

    model, inputs = bert()
    other_trace(move_weights)
    proof = export(model, inputs, tmp_path / "model.pt").proof
    assert re.fullmatch(r"not bit-equal, error ratio \d\.\d\d ≤ 4, largest difference \S+", proof)


def test_trace_in_training_mode_would_be_seen(other_trace, tmp_path, monkeypatch):
    """A trace with dropout fails its proof, so eval mode matters."""
    from parity.torchscript import trace

    model, inputs = bert()
    other_trace(lambda own: own.train())
    monkeypatch.setattr(trace, "evaluation_mode", training)
    with pytest.raises(ValueMismatch):
        export(model, inputs, tmp_path / "model.pt")


def training(model, overrides):
    """Prepares nothing but switches gradients off."""
    import torch

    return torch.no_grad()


def test_names_may_come_in_any_order():
    """A mapping is bound by name: the file has the inputs in the declaration's order."""
    model, inputs = bert()
    made = export(model, dict(reversed(inputs.items())))
    assert list(made.inputs) == ["input_ids", "attention_mask", "token_type_ids"]


def test_list_is_taken_in_the_declarations_order_and_told():
    """The second tensor of a bare list becomes the attention mask, and the log says so."""
    model, inputs = bert()
    lines = []
    made = export(model, [inputs["input_ids"], inputs["token_type_ids"]], say=lines.append)
    assert list(made.inputs) == ["input_ids", "attention_mask"]
    assert lines[:2] == ["Input 0: input_ids, int64 (2, 8)", "Input 1: attention_mask, int64 (2, 8)"]


def test_log_goes_to_a_logger(caplog):
    """Without `say` the lines go to the logger `parity.torchscript`."""
    model, inputs = bert()
    with caplog.at_level("INFO", logger="parity.torchscript"):
        export(model, inputs)
    assert "Input 2: token_type_ids, int64 (2, 8)" in caplog.messages


def test_past_key_values_come_flat_nested_or_as_a_cache():
    """All three are the same inputs, in the declaration's order."""
    from parity.releases import to_cache

    subject = subjects.subject("gpt2", "causal-lm-with-past")
    nested = dict(subject.source.generate(seed=1).inputs)
    flat = subject.source.layout.flatten(nested)
    cache = {**nested, "past_key_values": to_cache(nested["past_key_values"])}
    for given in (nested, flat, cache):
        assert list(export(subject.fresh_model(), given, prove=False).inputs) == list(subject.onnx_config.inputs)


def test_outputs_can_be_chosen():
    """The first output alone, or another order; an unknown one is refused with the valid names."""
    model, inputs = bert()
    assert list(export(model, inputs).outputs) == ["last_hidden_state", "pooler_output"]
    assert list(export(model, inputs, outputs=["pooler_output"]).outputs) == ["pooler_output"]
    with pytest.raises(UsageError, match="outputs: logits asked for, the model returns last_hidden_state, pooler_out"):
        export(model, inputs, outputs=["logits"])


def test_model_of_ones_own_comes_with_its_configuration(tmp_path):
    """A subclass of BertModel with its own OnnxConfig and fewer inputs is traced and proven."""
    from transformers import BertModel

    from parity.onnx import OnnxConfig

    class Half(BertModel):
        def forward(self, input_ids, attention_mask=None, return_dict=None):
            found = super().forward(input_ids, attention_mask=attention_mask, return_dict=True)
            found.last_hidden_state = found.last_hidden_state / 2
            return found

    class HalfOnnxConfig(OnnxConfig):
        @property
        def inputs(self):
            return OrderedDict(input_ids={0: "batch", 1: "sequence"}, attention_mask={0: "batch", 1: "sequence"})

    model, inputs = bert()
    half = Half(model.config).eval()
    inputs.pop("token_type_ids")
    made = export(half, inputs, tmp_path / "half.pt", onnx_config=HalfOnnxConfig(model.config))
    assert (list(made.inputs), is_proven(made)) == (["input_ids", "attention_mask"], True)


def refusals():
    """Wrong inputs of a tiny BERT → a part of the message."""
    import torch

    ids = torch.ones(2, 8, dtype=torch.long)
    return {
        "nothing": ({}, "nothing given, should be some of input_ids"),
        "unknown name": ({"input_ids": ids, "pixel_values": ids}, "pixel_values given, should be some of"),
        "too many": ([ids] * 4, "4 are given, 3 declared: input_ids, attention_mask, token_type_ids"),
        "no tensor": ({"input_ids": [[1, 2]]}, "input_ids is a list, should be a torch tensor"),
        "too few axes": ({"input_ids": ids[0]}, "has shape (8,), should have the axes batch, sequence"),
        "beyond the vocabulary": ({"input_ids": ids + 1000}, "the model itself refuses them: IndexError"),
    }


@pytest.mark.parametrize(
    "case", ["nothing", "unknown name", "too many", "no tensor", "too few axes", "beyond the vocabulary"]
)
def test_inputs_that_cannot_be_right_are_refused(case, tmp_path):
    """One message has the input, its value and the expected value; nothing is written."""
    inputs, message = refusals()[case]
    with pytest.raises(UsageError, match=re.escape(message)):
        export(bert()[0], inputs, tmp_path / "model.pt")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_model_is_refused():
    """A linear layer has no configuration."""
    import torch

    with pytest.raises(UsageError, match="got Linear, should be a PyTorch model of transformers"):
        export(torch.nn.Linear(2, 2), [])


def test_output_that_cannot_be_written_is_refused(tmp_path):
    """A directory at the file's path is an OutputError."""
    model, inputs = bert()
    with pytest.raises(OutputError, match="is a directory"):
        export(model, inputs, tmp_path)


@pytest.mark.parametrize("style", ["with a context", "with setup_context"])
def test_autograd_function_is_only_its_forward_while_tracing(style):
    """Inside, both styles of function call their forward; afterwards their own gradient is used again."""
    import torch

    from parity.torchscript.trace import _inline_functions

    functions = {"with a context": doubling(), "with setup_context": tripling()}
    if style == "with setup_context" and not hasattr(torch.autograd.Function, "setup_context"):
        pytest.skip("torch before 2.0 has no setup_context")
    before, ones = dict(vars(torch.autograd.Function)), torch.ones(2, requires_grad=True)
    with _inline_functions():
        assert type(functions[style].apply(ones).grad_fn).__name__ == "MulBackward0"
    assert dict(vars(torch.autograd.Function)) == before
    functions[style].apply(ones).sum().backward()
    assert ones.grad.tolist() == [7.0, 7.0]


def doubling():
    """An autograd function whose forward takes a context, and whose gradient is not that of its forward."""
    import torch

    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * 2

        @staticmethod
        def backward(ctx, gradient):
            return gradient * 7

    return Doubled


def tripling():
    """The same in the style of torch 2.0."""
    import torch

    class Tripled(torch.autograd.Function):
        @staticmethod
        def forward(x):
            return x * 3

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)

        @staticmethod
        def backward(ctx, gradient):
            return gradient * 7

    return Tripled


def test_failing_trace_is_one_message(monkeypatch, tmp_path):
    """Any exception of torch becomes an ExportError."""
    import torch

    def fails(*arguments, **options):
        raise IndexError("unordered_map::at")

    monkeypatch.setattr(torch.jit, "trace", fails)
    model, inputs = bert()
    with pytest.raises(ExportError, match=r"torch\.jit\.trace failed: IndexError: unordered_map::at"):
        export(model, inputs, tmp_path / "model.pt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("on", [False, True])
def test_check_trace_is_told_when_it_is_on(on, monkeypatch):
    """By default torch traces once; with check_trace the log says that it takes two to three times as long."""
    import torch

    flags, own = [], torch.jit.trace
    monkeypatch.setattr(
        torch.jit, "trace", lambda *a, **options: (flags.append(options["check_trace"]), own(*a, **options))[1]
    )
    model, inputs = bert()
    lines = []
    export(model, inputs, check_trace=on, say=lines.append)
    assert flags == [on]
    assert any("two to three times as long" in line for line in lines) is on


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A tiny BERT's file."""
    model, inputs = bert()
    path = tmp_path_factory.mktemp("file") / "bert.pt"
    export(model, inputs, path)
    return path


def test_file_says_what_it_is(file):
    """Loaded again it has its inputs, outputs, axes and sizes, without the model."""
    from parity.torchscript import load

    trace = load(file)
    assert trace.sizes == {"batch": 2, "sequence": 8}
    assert trace.inputs["token_type_ids"] == {0: "batch", 1: "sequence"}
    assert trace.outputs == {"last_hidden_state": {0: "batch", 1: "sequence"}, "pooler_output": {0: "batch"}}
    assert (trace.model_type, trace.feature, trace.attention, trace.padding) == ("bert", "default", "eager", True)


def test_verdict_on_a_loaded_file_needs_only_the_model(file):
    """The inputs are created from the declaration in the file."""
    from parity.torchscript import load, verdict

    found = verdict(load(file), bert()[0], sizes={"batch": (1,), "sequence": (5,)})
    assert {each.axis: each.outcome for each in found} == {"batch": "generalises", "sequence": "generalises"}


ALONE = """
import sys, warnings
warnings.simplefilter("ignore")
import torch
loaded = torch.jit.load(sys.argv[1])
hidden, pooled = loaded(*[torch.ones(3, 5, dtype=torch.long)] * 3)
print(tuple(hidden.shape), tuple(pooled.shape), "transformers" in sys.modules)
"""


def test_file_runs_where_neither_parity_nor_transformers_is_imported(file):
    """`torch.jit.load` alone can run it."""
    done = subprocess.run([sys.executable, "-c", ALONE, str(file)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(3, 5, 32) (3, 32) False"


@pytest.mark.parametrize("kind", ["missing", "truncated", "foreign"])
def test_file_that_cannot_be_read_is_told(file, kind, tmp_path):
    """No file, half a file and a foreign file give one message each."""
    import torch

    from parity.loading import quiet_transformers
    from parity.torchscript import load

    path = tmp_path / "model.pt"
    if kind == "truncated":
        path.write_bytes(file.read_bytes()[:5000])
    elif kind == "foreign":
        with quiet_transformers():
            torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), str(path))
    messages = {"missing": "no such file", "truncated": "cannot load it", "foreign": "parity did not write it"}
    with pytest.raises(SessionError, match=messages[kind]):
        load(path)


def test_minimum_torch_follows_the_attention(file):
    """Eager files load in torch 1.13; scaled_dot_product_attention needs 2.0, 2.1 or 2.5, by its arguments."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention as attention

    from parity.loading import quiet_transformers
    from parity.torchscript import load
    from parity.torchscript.needs import minimum_torch

    heads = torch.ones(1, 2, 3, 4)
    calls = {
        "1.13": lambda q: q + 1,
        "2.0": lambda q: attention(q, q, q),
        "2.1": lambda q: attention(q, q, q, scale=0.5),
        "2.5": lambda q: attention(q, q[:, :1], q[:, :1], enable_gqa=True),
    }
    with quiet_transformers():
        found = {since: minimum_torch(torch.jit.trace(call, heads)) for since, call in calls.items()}
    assert found == {since: since for since in calls}
    assert load(file).minimum_torch == "1.13"


NEITHER = """
import sys
import parity.torchscript.__main__
assert not {"torch", "transformers", "onnx", "onnxruntime"} & set(sys.modules)
import parity.torchscript as p
[getattr(p, name) for name in p.__all__]
import parity.onnx.checkpoint_export
print(sorted({"onnx", "onnxruntime"} & set(sys.modules)))
"""


def test_library_needs_no_onnx():
    """Importing everything imports neither onnx nor onnxruntime, and the command's module not even torch."""
    done = subprocess.run([sys.executable, "-c", NEITHER], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
