"""Inputs at chosen sizes: every axis gets its size, padding stands where it was asked for, values vary."""

from types import SimpleNamespace

import pytest

from parity.fixtures import subjects


def test_every_named_axis_gets_the_size_asked_for():
    """Caches, masks and tokens of gpt2 with a past of 5 and a sequence of 3 fit each other."""
    source = subjects.subject("gpt2", "causal-lm-with-past").source
    inputs = source.resize({"batch": 3, "sequence": 3, "past_sequence": 5}).inputs
    assert inputs["input_ids"].shape == (3, 3)
    assert inputs["attention_mask"].shape == (3, 8)
    assert inputs["past_key_values"][0][0].shape[2] == 5


def test_a_past_of_zero_is_possible():
    """Caches of length 0 keep their other axes."""
    source = subjects.subject("gpt2", "causal-lm-with-past").source
    inputs = source.resize({"past_sequence": 0}).inputs
    assert inputs["past_key_values"][1][1].shape == (2, 4, 0, 8)


def test_an_unknown_axis_is_refused():
    """A size for an axis that no input names is an error, not a no-op."""
    with pytest.raises(KeyError, match="choice"):
        subjects.subject("bert", "default").source.resize({"choice": 3})


@pytest.mark.parametrize(("side", "places"), [("left", slice(None, 4)), ("right", slice(5, None))])
def test_padding_stands_on_its_side(side, places):
    """The last row loses half of its tokens to padding on that side, the first row none."""
    source = subjects.subject("bert", "default").source
    inputs = source.resize({"batch": 3, "sequence": 9}, padding=side).inputs
    assert inputs["attention_mask"][0].all()
    assert inputs["attention_mask"].sum(1).tolist() == [9, 8, 5]
    assert not inputs["attention_mask"][2, places].any()
    assert (inputs["input_ids"][2, places] == 0).all()


def test_values_follow_the_seed():
    """Equal seeds give equal tokens, others others; special tokens stay where the tokenizer put them."""
    source = subjects.subject("bert", "default").source
    first, again, other = (source.generate(seed=seed).inputs["input_ids"] for seed in (1, 1, 2))
    assert first.equal(again)
    assert not first.equal(other)
    assert first[:, 0].unique().numel() == 1


def test_short_inputs_vary_too():
    """One token leaves no room for another beside the special ones: it is drawn, or a pool would be one input."""
    source = subjects.subject("bert", "default").source
    tokens = {source.resize({"batch": 1, "sequence": 1}, seed=seed).inputs["input_ids"].item() for seed in range(8)}
    assert len(tokens) > 4


def test_a_fully_masked_row_keeps_its_tokens():
    """`whole` masks the last row from end to end, its past too, and nothing else."""
    source = subjects.subject("gpt2", "causal-lm-with-past").source
    sizes = {"batch": 2, "sequence": 3, "past_sequence": 4}
    masked, plain = (source.resize(sizes, padding=padding).inputs for padding in ("whole", ""))
    assert masked["attention_mask"].tolist() == [[1] * 7, [0] * 7]
    assert masked["input_ids"].equal(plain["input_ids"])


def test_an_unknown_padding_is_refused():
    """A misspelled side is an error, not right padding."""
    with pytest.raises(ValueError, match="centre"):
        subjects.subject("bert", "default").source.resize({}, padding="centre")


def test_all_boundaries_are_among_the_default_sizes():
    """Batch 1 and 3, sequence 1, longer than the export, past 0, choices 1 and 3, and both sides of padding."""
    from parity.shapes import default_sizes

    traced = dict.fromkeys(("batch", "sequence", "past_sequence", "choice", "encoder_sequence", "decoder_sequence"), 8)
    choices = default_sizes(traced)
    values = {name: {sizes[name] for sizes, _ in choices} for name in traced}
    assert len(choices) >= 8
    assert {1, 3} <= values["batch"]
    assert {1, 7, 9} <= values["sequence"]
    assert max(values["sequence"]) > 16
    assert {0, 1} <= values["past_sequence"]
    assert {1, 3} <= values["choice"]
    assert {padding for _, padding in choices} == {"", "left", "right"}
    assert any(sizes["encoder_sequence"] != sizes["decoder_sequence"] for sizes, _ in choices)


def test_sounds_and_axes_that_say_their_sizes_take_others():
    """Both shorter and longer than the export, inside what is allowed; a name that says nothing keeps its size."""
    from parity.shapes import default_sizes

    traced = {"batch": 2, "sound": 200, "frames": 8, "patches": 8}
    choices = default_sizes(traced, allowed={"frames": range(8, 12)})
    assert {sizes["sound"] for sizes, _ in choices} >= {100, 200, 400}
    assert {sizes["frames"] for sizes, _ in choices} == {8, 9, 10, 11}
    assert not any("patches" in sizes for sizes, _ in choices)


def test_the_ends_of_a_sound_are_boundaries():
    """Of any axis that says its sizes, too; of one that does not, nothing can be claimed."""
    from types import SimpleNamespace

    from parity.fixtures.sizes import boundaries

    def ends(axes, **axis_sizes):
        source = SimpleNamespace(axes=axes, axis_sizes=axis_sizes, masked=False)
        return {example.name: dict(example.sizes) for example in boundaries(source, None)}

    sound = ends({"batch": 2, "sound": 200})
    assert sound["batch 1"] == {"batch": 1, "sound": 200}
    assert sound["the shortest sound"]["sound"] == 100
    assert ends({"batch": 2, "frames": 8}, frames=range(5, 12))["the longest frames"]["frames"] == 11
    with pytest.raises(ValueError, match="frames"):
        ends({"batch": 2, "frames": 8})


def test_what_has_a_mask_is_padded_and_nothing_else():
    """An image with a mask of its pixels too, as detr's; no sample of a model without a mask says that it is padded."""
    from parity.shapes import choose_samples

    padded = [sample for sample in choose_samples(subjects.subject("detr", "default").source) if sample.padding]
    assert {sample.padding for sample in padded} == {"left", "right"}
    assert any((sample.inputs["pixel_mask"] == 0).any() for sample in padded)
    assert not any(sample.padding for sample in choose_samples(subjects.subject("vit", "default").source))


def test_names_that_contradict_themselves_are_noticed():
    """One name for two sizes, as in tables of the old package, makes the sizes inconsistent."""
    import torch

    from parity.samples import Sizes

    flat = {"a": torch.zeros(2, 8), "b": torch.zeros(2, 5)}
    assert Sizes({"a": {0: "batch", 1: "sequence"}, "b": {0: "batch"}}, flat).consistent
    assert not Sizes({"a": {0: "batch", 1: "sequence"}, "b": {0: "batch", 1: "sequence"}}, flat).consistent
    assert not Sizes({"a": {1: "sequence"}, "b": {1: "past + sequence"}}, flat).consistent


def test_token_types_and_tokens_are_known_by_their_roles():
    """Those of a decoder, and of inputs with names of their own, are varied as `token_type_ids` and `input_ids` are."""
    import torch

    from parity.samples import SampleSource

    layout = SimpleNamespace(names=("decoder_token_type_ids",))
    assert SampleSource.token_types.fget(SimpleNamespace(_token_types=2, layout=layout)) == 2
    names = ("token_type_ids", "decoder_token_type_ids", "input_ids", "query_input_ids")
    flat = {name: torch.zeros(4, 32, dtype=torch.long) for name in names}
    source = SimpleNamespace(_vocabulary_of=lambda name: 96, _token_types=2, _special=set())
    SampleSource._vary(source, flat, torch.Generator().manual_seed(0))
    assert [name for name, tensor in flat.items() if len(tensor.unique()) < 2] == []
