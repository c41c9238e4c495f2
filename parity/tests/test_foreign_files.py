"""Files with names, types, sizes and inputs of other exporters: right files pass, wrong files do not."""

import functools
import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from parity.axes import canonical_name
from parity.causes import cause_of
from parity.check import main
from parity.fixtures.checkpoints import save_checkpoint
from parity.fixtures.controls import commands
from parity.fixtures.controls.parts import write_part
from parity.judge.contract import Contract, Value
from parity.judge.findings import Finding
from parity.judge.foreign import View
from parity.judge.names import Known, Matching, is_generated, match_names
from parity.onnx.__main__ import main as export_main

run = functools.partial(commands.run, command=main)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A tiny BERT, and its file exported by parity."""
    directory, output = (tmp_path_factory.mktemp(name) for name in ("bert", "exported"))
    save_checkpoint(directory, "bert")
    assert run("-m", directory, "--quiet", output, command=export_main)[0] == 0
    return directory, output / "model.onnx"


@pytest.fixture
def foreign(tiny, tmp_path):
    """A function that writes the file without metadata and with changes."""

    def write(*changes, metadata=()):
        model = onnx.load(tiny[1])
        del model.metadata_props[:]
        for key, value in metadata:
            model.metadata_props.add(key=key, value=value)
        for change in changes:
            change(model)
        onnx.save(model, tmp_path / "model.onnx")
        return tmp_path / "model.onnx"

    return write


def rename(kind, before, after):
    def change(model):
        for value in getattr(model.graph, kind):
            value.name = after if value.name == before else value.name
        for node in model.graph.node:
            for side in (node.input, node.output):
                side[:] = [after if name == before else name for name in side]

    return change


def spoil_bias(model, ending="1.output.LayerNorm.bias", change=0.1):
    """The last bias of the file, in its last norm, or another one, moved."""
    bias = next(each for each in model.graph.initializer if each.name.endswith(ending))
    values = numpy_helper.to_array(bias).copy()
    values[3] += change
    bias.CopyFrom(numpy_helper.from_array(values, bias.name))


def narrow_ids(model):
    """Use int32 ids with a cast."""
    for value in model.graph.input:
        value.type.tensor_type.elem_type = onnx.TensorProto.INT32
        for node in model.graph.node:
            node.input[:] = [f"{value.name}.wide" if name == value.name else name for name in node.input]
        cast = onnx.helper.make_node("Cast", [value.name], [f"{value.name}.wide"], to=onnx.TensorProto.INT64)
        model.graph.node.insert(0, cast)


def free_width(model):
    """Give the size of the hidden states a symbol, and add a second copy of a weight."""
    model.graph.output[0].type.tensor_type.shape.dim[2].dim_param = "width"
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    model.graph.initializer.add().CopyFrom(largest)
    model.graph.initializer[-1].name = "again"


NAMES = {
    "torchscript": (rename("input", "input_ids", "input.1"), rename("output", "last_hidden_state", "333")),
    "torch.export": (rename("output", "last_hidden_state", "layer_norm_4"),),
    "sentence-transformers": (rename("output", "last_hidden_state", "token_embeddings"),),
    "int32": (narrow_ids,),
    "written twice": (free_width,),
}


@pytest.mark.parametrize("changes", NAMES.values(), ids=NAMES)
def test_a_file_of_other_names_passes(tiny, foreign, changes):
    """Inputs and outputs are matched by their properties; the rest is a remark."""
    status, out, _ = run(tiny[0], foreign(*changes), "--json")
    result = json.loads(out)
    assert (status, result["status"]) == (0, "passed")
    assert result["outputs"]["last_hidden_state"]["ratio"] < 2
    assert result["remarks"] or changes == NAMES["sentence-transformers"]


@pytest.mark.parametrize("changes", NAMES.values(), ids=NAMES)
def test_a_fault_in_a_file_of_other_names_is_rejected(tiny, foreign, changes):
    """The control: one changed bias with the same names."""
    status, _, err = run(tiny[0], foreign(*changes, spoil_bias))
    assert status == 1
    assert "error ratio" in err


def test_names_of_its_own_need_a_table(tiny, foreign, tmp_path):
    """Unknown names are reported; with --names the file is judged."""
    file = foreign(rename("input", "input_ids", "words"), rename("output", "last_hidden_state", "hidden"))
    status, _, err = run(tiny[0], file, "--feature", "default")
    assert status == 1
    assert err.splitlines()[0].startswith("error: input input_ids: is missing")
    table = tmp_path / "names.json"
    names = {"inputs": {"words": "input_ids"}, "outputs": {"hidden": "last_hidden_state"}}
    table.write_text(json.dumps(names), encoding="utf-8")
    assert run(tiny[0], file, "--names", table, "--quiet") == (0, "", "")


@pytest.mark.parametrize(
    "text", ["", "[]", '{"input": {}}', '{"inputs": {"a": 1}}', '{"inputs": {"a": "x", "b": "x"}}']
)
def test_bad_table_of_names_is_usage(tiny, tmp_path, text):
    """A file that is no table of names gives exit status 2, with an example."""
    (tmp_path / "names.json").write_text(text, encoding="utf-8")
    status, _, err = run(tiny[0], tiny[1], "--names", tmp_path / "names.json")
    assert status == 2
    assert "--names" in err


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"inputs": {"wrds": "input_ids"}}, "--names inputs.wrds: is no name of the file's, should be one of"),
        ({"outputs": {"hiden": "logits"}}, "--names outputs.hiden: is no name of the file's, should be one of"),
        ({"inputs": {"words": "tokens"}}, "--names inputs.words: is tokens, should be one of"),
        ({"outputs": {"hidden": "state"}}, "--names outputs.hidden: is state, should be one of"),
    ],
)
def test_a_table_with_a_name_that_does_not_exist_is_usage(tiny, foreign, tmp_path, table, message):
    """Of the file, or of the model: such an entry would be without effect; the names that exist are listed."""
    file = foreign(rename("input", "input_ids", "words"), rename("output", "last_hidden_state", "hidden"))
    (tmp_path / "names.json").write_text(json.dumps(table), encoding="utf-8")
    status, _, err = run(tiny[0], file, "--names", tmp_path / "names.json", "--feature", "default")
    assert status == 2
    assert message in err


def drop_input(name, shape):
    """Replace the input by zeros of another input's shape, as if the exporter had not received it."""

    def change(model):
        (value,) = [each for each in model.graph.input if each.name == name]
        model.graph.input.remove(value)
        model.graph.node.insert(0, onnx.helper.make_node("Sub", [shape, shape], [name]))

    return change


def test_a_file_without_token_types_is_right_for_what_it_takes(tiny, foreign):
    """It answers like the model without them; a remark says that they are missing."""
    status, out, _ = run(tiny[0], foreign(drop_input("token_type_ids", "input_ids")), "--json")
    result = json.loads(out)
    assert (status, result["status"]) == (0, "passed")
    assert "input token_type_ids: the file does not have it, and answers as if it were 0" in result["remarks"]


def test_a_file_of_another_checkpoint_says_so_first(tiny, foreign):
    """If the hash in the metadata is another checkpoint's, that is the first line for a wrong file, else a warning."""
    metadata = [("checkpoint", "0" * 64)]
    status, _, err = run(tiny[0], foreign(spoil_bias, metadata=metadata))
    assert status == 1
    assert err.splitlines()[0].startswith(
        "error: checkpoint: the file was exported from one whose hash is 000000000000"
    )
    status, _, err = run(tiny[0], foreign(metadata=metadata))
    assert status == 0
    assert err.startswith("warning: checkpoint: the file was exported from one")
    assert "it computes the same" in err


def test_max_ratio_decides_and_is_told(tiny, foreign):
    """The ratio can be loosened and tightened; every verdict says which rule decided."""
    file = foreign()
    status, log, _ = run(tiny[0], file)
    assert (status, log.splitlines()[-2]) == (0, "Decided by: error ratio at most 4")
    status, out, _ = run(tiny[0], file, "--max-ratio", "0.001", "--json")
    assert (status, json.loads(out)["rule"]) == (1, "error ratio at most 0.001")


def test_what_was_not_compared_has_no_numbers(tiny, foreign):
    """A file that cannot run has neither differences nor ratios, also with --json."""
    file = foreign(lambda model: model.graph.node[0].CopyFrom(onnx.helper.make_node("NoSuch", ["input_ids"], ["x"])))
    status, out, log = run(tiny[0], file, "--json")
    result = json.loads(out)
    assert status == 1
    assert {"worst", "ratio"} & {*result["outputs"]["last_hidden_state"]} == set()
    assert "values" not in result
    assert "largest difference" not in log


def zero_rows(first):
    def change(model):
        (table,) = [each for each in model.graph.initializer if each.name.endswith("position_embeddings.weight")]
        values = numpy_helper.to_array(table).copy()
        values[first:] = 0
        table.CopyFrom(numpy_helper.from_array(values, table.name))

    return change


def test_a_wrong_weight_is_told_first(tiny, foreign):
    """Positions that are zero from 20 on: the first line has the weight and the index, once."""
    status, _, err = run(tiny[0], foreign(zero_rows(20)))
    lines = [line for line in err.splitlines() if "weight embeddings.position_embeddings.weight" in line]
    assert status == 1
    assert err.splitlines()[0].startswith("error: weight embeddings.position_embeddings.weight: ")
    assert len(lines) == 1


TEXT = {"o": {0: "batch", 1: "sequence"}}


SHAPES = ((2, 8, ""), (1, 1, ""), (3, 12, "right"), (2, 31, ""), (2, 13, "left"), (8, 19, "mixed"), (2, 35, "mixed"))


def cause(wrong, shapes=SHAPES, first=None):
    """The cause of a file that is wrong at the sizes selected by `wrong`."""
    from parity.samples import Sample

    samples = [Sample({"batch": b, "sequence": s}, padding, {}) for b, s, padding in shapes]
    measurements = {} if first is None else {"first": (0, first, 0)}
    findings = [Finding("values", "o", not wrong(s), "wrong", str(s), dict(measurements)) for s in samples]
    return cause_of(findings, samples, {"batch": 2, "sequence": 8}, TEXT)


def test_one_cause_by_what_is_wrong():
    """A fixed size: right at one size. Left padding only. Wrong from a token on, in longer texts only."""
    assert cause(lambda sample: sample.sizes["sequence"] != 8).startswith("axis sequence: the file is right if")
    assert cause(lambda sample: sample.padding in ("left", "mixed")).startswith("padding: ")
    for is_wrong in (lambda sample: True, lambda sample: not sample.padding):
        tokens = cause(lambda sample, also=is_wrong: sample.sizes["sequence"] > 20 and also(sample), first=20)
        assert tokens.startswith("tokens: the file is wrong from token 20 on")


def test_no_cause_where_nothing_explains():
    """A file wrong everywhere, with any padding, or wherever a token sees another has no fixed axis."""
    assert cause(lambda sample: True, first=0) == ""
    assert cause(lambda sample: bool(sample.padding)) == ""
    assert cause(lambda sample: sample.padding == "mixed") == ""
    assert cause(lambda sample: sample.padding == "mixed" and sample.sizes["sequence"] > 20, first=20) == ""
    assert cause(lambda sample: sample.sizes["sequence"] > 1, first=0) == ""
    assert cause(lambda sample: sample.sizes["sequence"] > 20, first=3) == ""


def count_tokens(model):
    """Take the number of ones in a row of the mask for the number of its first tokens that are no padding."""
    constants = {"one": [1], "axis": 1}
    nodes = [
        ("Sub", ["attention_mask", "attention_mask"], "mask.zeros"),
        ("Add", ["mask.zeros", "one"], "mask.ones"),
        ("CumSum", ["mask.ones", "axis"], "mask.places"),
        ("Add", ["mask.length", "one"], "mask.end"),
        ("Less", ["mask.places", "mask.end"], "mask.inside"),
    ]
    for node in model.graph.node:
        node.input[:] = ["mask.counted" if name == "attention_mask" else name for name in node.input]
    model.graph.node.insert(0, onnx.helper.make_node("Cast", ["mask.inside"], ["mask.counted"], to=7))
    for operator, inputs, output in reversed(nodes):
        model.graph.node.insert(0, onnx.helper.make_node(operator, inputs, [output]))
    model.graph.node.insert(0, onnx.helper.make_node("ReduceSum", ["attention_mask"], ["mask.length"], axes=[1]))
    model.graph.initializer.extend(numpy_helper.from_array(np.array(v), name) for name, v in constants.items())


def test_a_file_that_is_wrong_with_left_padding_only_says_so(tiny, foreign):
    """It counts the ones of the mask: right for every other padding, and for rows that have none."""
    status, _, err = run(tiny[0], foreign(count_tokens))
    assert status == 1
    assert err.splitlines()[0].startswith("error: padding: the file is wrong if rows are padded on the left")


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("past_key_values_0_key", "past_key_values.0.key"),
        ("cache.1.values", "past_key_values.1.value"),
        ("cache.layers.1.values", "past_key_values.1.value"),
        ("input.cache.cross_attention_cache.layers.0.keys", "past_key_values.0.encoder.key"),
    ],
)
def test_caches_have_names_of_their_own(name, canonical):
    """Caches are matched by layer and part."""
    assert canonical_name(name, "input") == canonical


@pytest.fixture(scope="module")
def pooling(tmp_path_factory):
    """The file of the tiny BERT with the output of its pooler, which the feature does not have."""
    return write_part("bert", "default", "", tmp_path_factory.mktemp("pooling"), {"pooler_output": {0: "batch"}})


def test_an_output_that_the_model_also_returns_is_judged(tiny, pooling, tmp_path):
    """It has an error ratio of its own; a fault in what it alone is made of is rejected."""
    status, out, _ = run(tiny[0], pooling, "--json")
    outputs = json.loads(out)["outputs"]
    assert (status, [*outputs]) == (0, ["last_hidden_state", "pooler_output"])
    assert outputs["pooler_output"]["ratio"] < 2
    model = onnx.load(pooling)
    spoil_bias(model, "pooler.dense.bias", 0.001)
    onnx.save(model, tmp_path / "model.onnx")
    status, out, _ = run(tiny[0], tmp_path / "model.onnx", "--json")
    subjects = {each["subject"] for each in json.loads(out)["failures"] if each["check"] == "ratio"}
    assert (status, subjects) == (1, {"pooler_output"})


@pytest.mark.parametrize("layer", [2, 1])
def test_hidden_states_are_judged(tiny, foreign, layer):
    """A model returns them if it is asked to, so they are outputs of its own; those of another layer fail."""

    def add_output(model):
        model.graph.node.append(onnx.helper.make_node("Identity", ["last_hidden_state"], [f"hidden_states.{layer}"]))
        value = model.graph.output.add()
        value.CopyFrom(model.graph.output[0])
        value.name = f"hidden_states.{layer}"

    status, out, _ = run(tiny[0], foreign(add_output), "--json")
    failed = {each["subject"] for each in json.loads(out)["failures"] if each["check"] == "ratio"}
    assert (status, failed) == ((0, set()) if layer == 2 else (1, {"hidden_states.1"}))


@pytest.mark.parametrize(("count", "has_cause"), [(8, True), (7, False)])
def test_folded_weights_are_no_other_checkpoint(count, has_cause):
    """A convolutional network in halves holds none of its weights unchanged, because its norms are folded."""
    from parity.samples import Sample

    sample = Sample({"batch": 2}, "", {})
    measurements = {"needed": 55, "telling": 0, "unfoldable": count}
    findings = [
        Finding("weights", "file", True, measurements=measurements),
        Finding("ratio", "logits", False, "wrong", str(sample)),
    ]
    assert (cause_of(findings, [sample], {"batch": 2}, TEXT) != "") is has_cause


def test_weights_that_are_folded_are_followed():
    """Those of norms, also written out, and of convolutions before them; no convolution or table that meets an input.

    An exporter computes the factor of a norm that is written out beforehand, and so the norm of a table; a table that
    is multiplied by an input somewhere else is in the file all the same.
    """
    from types import SimpleNamespace

    import torch

    from parity.dependence import weights_of
    from parity.judge.weights import foldable_names

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.normed, self.scaled, self.plain = (torch.nn.Conv2d(3, 3, 1, bias=False) for _ in range(3))
            self.norm, self.config = torch.nn.BatchNorm2d(3), SimpleNamespace()
            self.gain, self.variance, self.table, self.used = (torch.nn.Parameter(torch.rand(3)) for _ in range(4))

        def forward(self, pixel_values, return_dict=True):
            factor = (self.gain * (self.variance + 1e-5).rsqrt()).reshape(1, -1, 1, 1)
            hidden = self.scaled(self.norm(self.normed(pixel_values))) * factor
            hidden = hidden * self.used.reshape(1, -1, 1, 1) + (self.used * 2).reshape(1, -1, 1, 1)
            return {"y": self.plain(hidden) * pixel_values + self.table[[2, 0, 1]].reshape(1, -1, 1, 1)}

    config = SimpleNamespace(outputs=["y"], values_override=None, complete_inputs=lambda inputs, names: dict(inputs))
    weights = weights_of(Model().eval(), config, {"pixel_values": torch.rand(2, 3, 4, 4)})
    norms = {f"norm.{name}" for name in ("weight", "bias", "running_mean", "running_var")}
    assert foldable_names(weights) == {"normed.weight", "scaled.weight", "gain", "variance", *norms}
    assert {weight.name for weight in weights if weight.fold} == {"normed.weight", "norm.bias"}


def test_a_file_of_another_model_is_told_as_that(tiny, foreign, tmp_path):
    """Without a hash too: none of the weights is there, and nothing is right. One wrong bias is another cause."""
    save_checkpoint(tmp_path / "other", "bert", seed=1)
    status, _, err = run(tmp_path / "other", foreign())
    assert status == 1
    assert err.startswith("error: checkpoint: the file holds none of its ")
    status, log, err = run(tiny[0], foreign(spoil_bias))
    assert status == 1
    assert "holds none of its" not in err
    assert log.splitlines()[-1] == "Decided by: error ratio at most 4"


def drop_output(name):
    def change(model):
        (value,) = [each for each in model.graph.output if each.name == name]
        model.graph.output.remove(value)

    return change


def test_a_file_with_a_past_has_to_return_it(tmp_path):
    """Whoever decodes with it reads every cache: one that is missing is named, and it is a failure."""
    checkpoint = tmp_path / "gpt2"
    save_checkpoint(checkpoint, "gpt2", "causal-lm-with-past")
    model = onnx.load(write_part("gpt2", "causal-lm-with-past", "", tmp_path))
    drop_output("present.1.key")(model)
    onnx.save(model, tmp_path / "model.onnx")
    status, _, err = run(checkpoint, tmp_path / "model.onnx", "--feature", "causal-lm-with-past")
    assert status == 1
    assert err.splitlines()[0].startswith("error: output present.1.key: is missing, should be an output of the file")


def test_outputs_that_can_be_spared_are_a_remark():
    """What the feature is for has to be there; what the model returns besides need not, which is said."""
    missing = ("logits", "encoder_last_hidden_state", "attentions.0")
    contract = Contract(17, (), (), {})
    view = View(contract, Matching({}), Matching({}, missing=missing), declared=frozenset(missing[:2]))
    assert [each.subject for each in view.failures()] == ["logits"]
    assert [each.message for each in view.remarks()] == ["output encoder_last_hidden_state: the file does not have it"]


def test_generated_names():
    """Names of operators and numbers are generated; words are not."""
    names = ["333", "input.1", "onnx::Cast_1", "layer_norm_4", "tanh", "hidden", "ids", "logits", "output_names"]
    assert [name for name in names if is_generated(name)] == names[:5]


def test_a_generated_name_is_matched_only_with_what_fits():
    """A floating point output cannot be ids, and a tensor with two axes cannot be one with three."""
    known = [Known("last_hidden_state", True, 3), Known("pooler_output", True, 2)]
    matching = match_names([Value("tanh", "float32", (2, 32)), Value("12", "int64", (2, 8))], known, "output")
    assert (dict(matching.names), matching.unknown) == ({"tanh": "pooler_output"}, ("12",))
    assert np.array_equal(matching.missing, ["last_hidden_state"])
