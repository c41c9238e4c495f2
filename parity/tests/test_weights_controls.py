"""Comparing weights with a file: found, changed and absent weights, each shown both ways."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from parity.fixtures import subjects
from parity.judge.findings import failures
from parity.judge.stored import stored_tensors
from parity.judge.weights import Weight, account_weights, judge_absences, judge_repeats, judge_weights

DRAWN = np.random.default_rng(0)
MATRIX, OTHER, THIRD = (DRAWN.standard_normal((24, 16)).astype(np.float32) for _ in range(3))
KERNEL = DRAWN.standard_normal((6, 4, 3, 5)).astype(np.float32)
BIAS, OTHER_BIAS = (DRAWN.standard_normal(24).astype(np.float32) for _ in range(2))


def weights_of(model, subject):
    """The weights of a model, marked if the subject's outputs depend on them."""
    from parity import dependence

    return dependence.weights_of(model, subject.onnx_config, subject.source.dummy)


def save(path, *nodes, **tensors):
    """Write a file with these initializers and nodes; returns its path."""
    initializers = [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in tensors.items()]
    onnx.save(helper.make_model(helper.make_graph(list(nodes), "weights", [], [], initializers)), path)
    return path


def account_of(path, **weights):
    """The account of weights with these values, for the file at `path`."""
    return account_weights([Weight((name,), array) for name, array in weights.items()], stored_tensors(path))


ARRANGEMENTS = {
    "as it is": (MATRIX, MATRIX),
    "transposed": (MATRIX, MATRIX.T),
    "reshaped": (MATRIX, MATRIX.reshape(12, 32)),
    "with axes of one element": (MATRIX, MATRIX.T[None, :, None]),
    "heads apart": (MATRIX, MATRIX.T.reshape(4, 4, 24)),
    "a kernel turned": (KERNEL, KERNEL.transpose(2, 3, 1, 0)),
    "not contiguous": (MATRIX.T, MATRIX),
    "a vector": (BIAS, BIAS),
    "in half precision": (MATRIX, MATRIX.T.astype(np.float16)),
    "in double precision": (MATRIX, MATRIX.astype(np.float64)),
    "columns of a merged matrix": (MATRIX, np.concatenate([OTHER, MATRIX, THIRD], 1)),
    "rows of a merged matrix": (MATRIX, np.concatenate([OTHER, MATRIX])),
    "turned columns of a merged matrix": (MATRIX, np.concatenate([OTHER.T, MATRIX.T, THIRD.T], 1)),
    "behind a smaller block": (MATRIX, np.concatenate([OTHER[:, :5], MATRIX], 1)),
    "part of a merged vector": (BIAS, np.concatenate([OTHER_BIAS, BIAS])),
    "larger than what is compared at once": (np.tile(MATRIX, (40, 40)), np.tile(MATRIX, (40, 40)).T),
    "whole numbers": (np.arange(24), np.arange(24)),
    "truth values": (MATRIX > 0, (MATRIX > 0).T),
}


@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_weight_is_found_as(name, tmp_path):
    """In any arrangement the weight is found without a difference."""
    weight, tensor = ARRANGEMENTS[name]
    account = account_of(save(tmp_path / "model.onnx", tensor=tensor), weight=weight)
    assert (account.found, account.absent, account.differences) == (("weight",), (), ())


@pytest.mark.parametrize("name", [name for name in ARRANGEMENTS if "behind" not in name])
def test_one_changed_element_is_told(name, tmp_path):
    """In any arrangement one changed element fails, with the weight's name and its own index."""
    weight, tensor = (np.array(array) for array in ARRANGEMENTS[name])
    index = tuple(size // 2 for size in weight.shape)
    # If values repeat, the tensor is the transposed weight.
    places = np.argwhere(tensor == weight[index].astype(tensor.dtype))
    place = tuple(places[0]) if len(places) == 1 else index[::-1]
    tensor[place] = not tensor[place] if tensor.dtype == bool else 2 * tensor[place] + 1
    account = account_of(save(tmp_path / "model.onnx", tensor=tensor), weight=weight)
    (difference,) = account.differences
    assert (difference.weight, difference.tensor, difference.count) == ("weight", "tensor", 1)
    assert (difference.index, difference.got) == (index, float(tensor[place]))
    (failure,) = failures(judge_weights(account))
    assert failure.message.startswith("weight weight: 1 of ")
    assert (account.found, account.absent) == ((), ())


def test_weights_in_several_pieces_are_found(tmp_path):
    """A matrix in several pieces is found if all are there, and absent if one is missing."""
    pieces = {f"piece{i}": part for i, part in enumerate(np.split(MATRIX, 4, axis=1))}
    assert account_of(save(tmp_path / "model.onnx", **pieces), weight=MATRIX).found == ("weight",)
    del pieces["piece2"]
    account = account_of(save(tmp_path / "model.onnx", **pieces), weight=MATRIX)
    assert (account.found, account.absent) == ((), ("weight",))


def test_every_block_of_a_merged_matrix_is_told(tmp_path):
    """Queries and values are found in a merged matrix whose keys have one changed element."""
    keys = OTHER.copy()
    keys[5, 7] = 3
    path = save(tmp_path / "model.onnx", merged=np.concatenate([MATRIX.T, keys.T, THIRD.T], 1))
    account = account_of(path, query=MATRIX, key=OTHER, value=THIRD)
    assert account.found == ("query", "value")
    assert [(each.weight, each.index, each.got) for each in account.differences] == [("key", (5, 7), 3)]


def test_a_changed_block_behind_one_of_another_size_is_told(tmp_path):
    """Like MobileBERT's head, which follows the tied embeddings, three rows that are also a separate tensor."""
    tied, head = MATRIX[:3], MATRIX[3:].copy()
    reference = head.copy()
    head[1, 2] += 1
    path = save(tmp_path / "model.onnx", table=tied, merged=np.concatenate([tied, head]))
    (difference,) = account_of(path, tied=tied, head=reference).differences
    assert (difference.weight, difference.tensor, difference.index) == ("head", "merged", (1, 2))


def test_second_copy_of_a_weight_is_compared_too(tmp_path):
    """A tied head written again, transposed, is reported if one element differs."""
    table = np.tile(MATRIX, (2, 1))
    table[0, 0] = 5
    head = table.T.copy()
    assert account_of(save(tmp_path / "model.onnx", table=table, head=head), weight=table).differences == ()
    head[3, 9] = 7
    account = account_of(save(tmp_path / "model.onnx", table=table, head=head), weight=table)
    assert [(each.weight, each.tensor, each.index) for each in account.differences] == [("weight", "head", (9, 3))]
    (finding,) = [each for each in judge_weights(account) if each.passed]
    assert finding.measurements["found"] == 0


def test_signs_of_zero_and_nan_are_no_change(tmp_path):
    """0 equals -0, and NaN equals NaN with any bits."""
    weight = MATRIX.copy()
    weight[0, :3] = 0, np.nan, 1
    tensor = weight.copy()
    tensor[0, 0] = -0.0
    tensor.view(np.uint32)[0, 1] ^= 1
    assert weight.tobytes() != tensor.tobytes()
    assert account_of(save(tmp_path / "model.onnx", tensor=tensor), weight=weight).found == ("weight",)


def test_what_is_computed_with_is_absent_and_no_fault(tmp_path):
    """A weight multiplied into another is absent; zeros in common do not count as a match."""
    sparse = np.where(np.arange(24 * 16).reshape(24, 16) % 10, 0, MATRIX).astype(np.float32)
    account = account_of(save(tmp_path / "model.onnx", tensor=sparse * np.float32(1.1)), weight=sparse)
    assert (account.absent, account.differences, account.unexplained) == (("weight",), (), ("tensor",))
    assert failures(judge_weights(account)) == []


def test_whole_numbers_in_common_are_no_fault(tmp_path):
    """Indices of another table share a few values with a weight by chance."""
    weight, tensor = np.arange(300) % 7, np.arange(300) % 11
    account = account_of(save(tmp_path / "model.onnx", tensor=tensor), weight=weight)
    assert (account.absent, account.differences) == (("weight",), ())


@pytest.mark.parametrize(("value", "is_fault"), [(1, False), (-1, False), (0.4375, True)])
def test_a_one_in_common_is_no_fault(value, is_fault, tmp_path):
    """A table of powers begins with 1, as a variance may; another number is not equal by chance."""
    weight, tensor = BIAS.copy(), np.float32(10000) ** (np.arange(24, dtype=np.float32) / 24)
    weight[0] = tensor[0] = value
    account = account_of(save(tmp_path / "model.onnx", tensor=tensor), weight=weight)
    assert len(account.differences) == is_fault


@pytest.mark.parametrize("rest", [1, 0.7])
def test_a_changed_gain_among_ones_is_told(rest, tmp_path):
    """The control: gains of a norm that are ones, all or all but one, of which the file has another."""
    weight = np.ones(2048, np.float32)
    weight[5] = rest
    tensor = weight.copy()
    tensor[5] *= -1
    (difference,) = account_of(save(tmp_path / "model.onnx", tensor=tensor), weight=weight).differences
    assert (difference.count, difference.index) == (1, (5,))


def test_bias_that_a_fold_leaves_alone_in_part_is_no_fault(tmp_path):
    """If a batch norm subtracts nothing, its bias stays in part: accepted only for foldable weights."""
    tensor = BIAS.copy()
    tensor[6:] += 1
    (tensors,) = [stored_tensors(save(tmp_path / "model.onnx", tensor=tensor))]
    for foldable in (True, False):
        account = account_weights([Weight(("weight",), BIAS, foldable=foldable)], tensors)
        assert len(account.differences) == (not foldable)


def test_what_no_weight_explains_is_listed_unless_small_or_constant(tmp_path):
    """Of the tensors that match no weight, the large and varying ones are listed."""
    large = DRAWN.standard_normal(256).astype(np.float32)
    path = save(tmp_path / "model.onnx", large=large, small=large[:255], constant=np.ones(4096, np.float32), own=MATRIX)
    assert account_of(path, weight=MATRIX).unexplained == ("large",)


def constant(name, array):
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array))


def test_tensors_are_found_wherever_a_file_has_them(tmp_path):
    """Constants, subgraphs, functions, lists of numbers and external data are read."""
    output = helper.make_tensor_value_info("o", TensorProto.FLOAT, None)
    inner = helper.make_graph([constant("in_subgraph", OTHER)], "then", [], [output])
    branch = helper.make_node("If", ["c"], ["o"], then_branch=inner, else_branch=inner)
    nodes = constant("in_node", THIRD), branch
    path = save(tmp_path / "model.onnx", *nodes, inside=MATRIX, outside=BIAS, empty=BIAS[:0])
    model = onnx.load(path)
    model.functions.append(
        helper.make_function("own", "f", [], ["k"], [constant("k", KERNEL)], [helper.make_opsetid("", 17)])
    )
    model.graph.initializer.append(helper.make_tensor("listed", TensorProto.FLOAT, (24,), OTHER_BIAS.tolist()))
    model.graph.initializer.append(helper.make_tensor("text", TensorProto.STRING, (1,), [b"word"]))
    outside = next(tensor for tensor in model.graph.initializer if tensor.name == "outside")
    (tmp_path / "data").write_bytes(b"before" + BIAS.tobytes() + b"after")
    onnx.external_data_helper.set_external_data(outside, "data", offset=6, length=BIAS.nbytes)
    outside.ClearField("raw_data")
    path.write_bytes(model.SerializeToString())
    tensors = {tensor.name: tensor.array for tensor in stored_tensors(path)}
    reference = {"in_node": THIRD, "in_subgraph": OTHER, "inside": MATRIX, "outside": BIAS, "k": KERNEL}
    assert set(tensors) == {*reference, "listed"}
    for name, array in {**reference, "listed": OTHER_BIAS}.items():
        assert (tensors[name].shape, tensors[name].tobytes()) == (array.shape, array.tobytes())


def test_declared_absences_are_judged_both_ways(tmp_path):
    """An undeclared absence, a declared weight that is found, and a pattern without a match are each named."""
    account = account_of(save(tmp_path / "model.onnx", tensor=MATRIX), found=MATRIX, folded=OTHER)

    def names(*patterns):
        return [finding.subject for finding in judge_absences(account, patterns)]

    assert names("fold*") == []
    assert names() == ["folded"]
    assert names("fold*", "found") == ["found", "found"]
    assert names("fold*", "nothing") == ["nothing"]
    assert names("*") == ["found"]


@pytest.mark.parametrize("copy", [MATRIX, MATRIX.T, MATRIX.reshape(12, 32)], ids=["same", "turned", "reshaped"])
def test_a_weight_that_is_held_twice_is_told(tmp_path, copy):
    """Both tensors are named; a weight equal to another one, a small one and a constant one are not."""
    path = save(tmp_path / "model.onnx", own=MATRIX, again=copy, other=OTHER, like=OTHER, small=BIAS, small_again=BIAS)
    account = account_of(path, own=MATRIX, other=OTHER, like=OTHER, bias=BIAS)
    assert account.repeated == {"own": ("own", "again")}
    (finding,) = judge_repeats(account)
    assert not finding.passed
    assert finding.message == "weight own: is in the file more than once: own, again"
    ones = np.ones_like(MATRIX)
    path = save(tmp_path / "constant.onnx", own=ones, again=ones)
    assert judge_repeats(account_of(path, own=ones)) == []


def test_log_names_what_is_absent_changed_and_unexplained(tmp_path):
    """The log counts, lists each changed weight, and names the first of the others."""
    from parity.onnx.log import validation_lines
    from parity.validation import Validation

    changed = THIRD.copy()
    changed[0, 1] = 2
    path = save(tmp_path / "model.onnx", own=MATRIX, third=changed, extra=np.tile(OTHER, (2, 1)) + 1)
    absent = {f"absent{i}": BIAS + i + 1 for i in range(10)}
    findings = judge_weights(account_of(path, own=MATRIX, third=THIRD, **absent))
    lines = [line.strip() for line in validation_lines(Validation((), {}, findings), atol=None)]
    assert "-[x] weights: 1 of 12 found" in lines
    assert f"-[x] {failures(findings)[0].message}" in lines
    first = ", ".join(f"absent{i}" for i in range(8))
    assert f"- not found, so that values alone speak for them: {first}, and 2 more" in lines
    assert "- in the file, and no weight: extra" in lines


def test_weights_that_no_output_depends_on_are_not_needed(bert):
    """Changed one at a time, exactly the needed weights of the tiny BERT change its output."""
    import torch

    from parity.reference import answers

    model = bert.fresh_model()
    weights = weights_of(model, bert)
    assert {weight.name for weight in weights if not weight.needed} >= {"pooler.dense.weight", "pooler.dense.bias"}
    sample = [bert.source.generate()]
    before = answers(model, bert.onnx_config, sample, exact=False)[0].eager["last_hidden_state"]
    parameters = dict(model.named_parameters())
    for weight in (weight for weight in weights if weight.name in parameters):
        own = parameters[weight.name].detach().clone()
        with torch.no_grad():
            # A key's bias is needed too, though softmax cancels it except for rounding.
            parameters[weight.name].normal_(std=3)
            moved = answers(model, bert.onnx_config, sample, exact=False)[0].eager["last_hidden_state"]
            parameters[weight.name].copy_(own)
        assert bool((moved != before).any()) is weight.needed, weight.name


@pytest.mark.parametrize(
    ("architecture", "feature", "unneeded"),
    [
        ("t5", "seq2seq-lm-with-past", "encoder.block.0.layer.1.DenseReluDense.wi.weight"),
        ("bart", "default", None),
        ("marian", "seq2seq-lm", None),
        ("whisper", "speech2seq-lm-with-past", None),
    ],
)
def test_weights_without_a_part_may_be_anything(architecture, feature, unneeded):
    """NaN in every unneeded weight leaves the answer finite, including caches and positions."""
    import torch

    from parity.reference import answers

    subject = subjects.fresh_subject(architecture, feature)
    model = subject.fresh_model()
    needed = {weight.name: weight.needed for weight in weights_of(model, subject)}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if needed.get(name) is False:
                parameter.fill_(float("nan"))
    (answer,) = answers(model, subject.onnx_config, [subject.source.generate()], exact=False)
    assert all(np.isfinite(array).all() for array in answer.eager.values())
    assert unneeded is None or needed[unneeded] is False


def test_a_constant_depends_on_nothing_that_lay_in_its_place_before(bert):
    """The memory of a result that is used no more may become that of a constant, which Python makes."""
    import torch

    model, place = bert.fresh_model(), np.zeros(32, dtype=np.float32)
    own = model.encoder.layer[-1].output.dense.forward

    def forward(hidden):
        torch.from_numpy(place).copy_(model.pooler.dense(own(hidden)[0, 0]))
        place[:] = 0
        return own(hidden) + torch.from_numpy(place)

    model.encoder.layer[-1].output.dense.forward = forward
    needed = {weight.name for weight in weights_of(model, bert) if weight.needed}
    assert "encoder.layer.1.output.dense.weight" in needed
    assert not {name for name in needed if name.startswith("pooler")}


# One of each kind, and models whose files have merged, transposed, tied or absent weights.
ARCHITECTURES = [
    ("bert", "masked-lm"),
    ("gpt2", "causal-lm"),
    ("t5", "seq2seq-lm"),
    ("bart", "seq2seq-lm-with-past"),
    ("big-bird", "question-answering"),
    ("mobilebert", "masked-lm"),
    ("deberta-v2", "token-classification"),
    ("llama", "causal-lm-with-past"),
    ("vit", "image-classification"),
    ("levit", "default"),
    ("segformer", "semantic-segmentation"),
    ("clip", "default"),
    ("whisper", "default"),
]


@pytest.mark.parametrize(("architecture", "feature"), ARCHITECTURES, ids=map("-".join, ARCHITECTURES))
def test_any_weight_with_a_flipped_element_is_told(architecture, feature, tmp_path):
    """One element of each weight in the file gets the other sign: it is reported for each copy, and nothing else is.

    Weights that a tensor may match by chance, and those of one element, are left out.
    """
    subject = subjects.fresh_subject(architecture, feature)
    weights = weights_of(subject.fresh_model(), subject)
    tensors = stored_tensors(subjects.artifact(subject, 17, tmp_path / "model.onnx"))
    healthy = account_weights(weights, tensors)
    assert healthy.differences == ()
    places = [
        place
        for place, weight in enumerate(weights)
        if weight.name in healthy.found and not weight.is_incidental and weight.array.size > 1
    ]
    told = [differences_of_flipped(weights, place, tensors) for place in places]
    assert told == [{(weights[place].name, 1)} for place in places]
    assert places


def differences_of_flipped(weights, place, tensors):
    """The reported weights with their numbers of differing elements, if the model's own has one flipped."""
    changed = weights[place].array.copy()
    changed[np.unravel_index(np.abs(changed).argmax(), changed.shape)] *= -1
    others = [*weights[:place], replace(weights[place], array=changed), *weights[place + 1 :]]
    return {(each.weight, each.count) for each in account_weights(others, tensors).differences}


NORM = ("gain", "shift", "mean", "variance")


@pytest.mark.parametrize(("behind", "count"), [("norm", 2), ("relu", 0), ("two norms", 0)])
def test_a_fold_is_what_the_norm_makes_of_the_convolution(behind, count):
    """Only where one batch norm reads the convolution itself: not what a ReLU has made of it in place."""
    import torch

    from parity.dependence import _Flow, _folds

    generator = torch.Generator().manual_seed(0)
    images, kernel, bias = (torch.randn(size, generator=generator) for size in ((2, 3, 8, 8), (4, 3, 3, 3), (4,)))
    norms = [{name: torch.rand(4, generator=generator) + 0.5 for name in NORM} for _ in range(2)]
    weights = [kernel, bias, *norms[0].values(), *norms[1].values()]

    def normalize(value, norm):
        gain, shift, mean, variance = norm.values()
        return torch.nn.functional.batch_norm(value, mean, variance, gain, shift, eps=0.01)

    with torch.no_grad(), _Flow(weights) as flow:
        convolved = torch.nn.functional.conv2d(images, kernel, bias)
        if behind == "relu":
            convolved = convolved.relu_()
        result = normalize(convolved, norms[0])
        if behind == "two norms":
            normalize(convolved, norms[1])
    folds = _folds(flow.folds, [each.numpy() for each in weights])
    assert len(folds) == count
    if count:
        weight, shift = (torch.from_numpy(folds[index]()).float() for index in (0, 3))
        torch.testing.assert_close(torch.nn.functional.conv2d(images, weight, shift), result)
