"""Inputs at chosen sizes: every axis gets its size, padding is on the chosen side, values vary."""

from types import SimpleNamespace

import pytest

from parity.fixtures import subjects


def test_every_named_axis_gets_the_size_asked_for():
    """Caches, masks and tokens of gpt2 with a past of 5 and a sequence of 3 have matching sizes."""
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
    """A size for an axis without an input is an error, not a no-op."""
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
    """Equal seeds give equal tokens, different seeds do not; special tokens stay in their places."""
    source = subjects.subject("bert", "default").source
    first, again, other = (source.generate(seed=seed).inputs["input_ids"] for seed in (1, 1, 2))
    assert first.equal(again)
    assert not first.equal(other)
    assert first[:, 0].unique().numel() == 1


def test_short_inputs_vary_too():
    """One token leaves no room for others beside special ones: it is drawn too, or all inputs would be equal."""
    source = subjects.subject("bert", "default").source
    tokens = {source.resize({"batch": 1, "sequence": 1}, seed=seed).inputs["input_ids"].item() for seed in range(8)}
    assert len(tokens) > 4


def test_a_fully_masked_row_keeps_its_tokens():
    """`whole` masks the last row completely, including its past, and no other row."""
    source = subjects.subject("gpt2", "causal-lm-with-past").source
    sizes = {"batch": 2, "sequence": 3, "past_sequence": 4}
    masked, plain = (source.resize(sizes, padding=padding).inputs for padding in ("whole", ""))
    assert masked["attention_mask"].tolist() == [[1] * 7, [0] * 7]
    assert masked["input_ids"].equal(plain["input_ids"])


def test_an_unknown_padding_is_refused():
    """A misspelled side is an error, not right padding."""
    with pytest.raises(ValueError, match="centre"):
        subjects.subject("bert", "default").source.resize({}, padding="centre")


def test_one_row_alone_is_padded():
    """Without it, a file that ignores the mask in a batch of one would pass; nothing is padded without a mask."""
    from parity.shapes import default_sizes

    sizes = default_sizes({"batch": 2, "sequence": 8}, 40)
    assert any(padding and each["batch"] == 1 and each["sequence"] > 1 for each, padding in sizes)
    assert not any(padding for _, padding in default_sizes({"batch": 2, "sequence": 8}, 40, masked=False))


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
    """Both shorter and longer than the export, within the allowed sizes; an unknown name keeps its size."""
    from parity.shapes import default_sizes

    traced = {"batch": 2, "sound": 200, "frames": 8, "patches": 8}
    choices = default_sizes(traced, allowed={"frames": range(8, 12)})
    assert {sizes["sound"] for sizes, _ in choices} >= {100, 200, 400}
    assert {sizes["frames"] for sizes, _ in choices} == {8, 9, 10, 11}
    assert not any("patches" in sizes for sizes, _ in choices)


def test_the_ends_of_a_sound_are_boundaries():
    """Also of any axis with declared sizes; without them nothing can be claimed."""
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
    """Also images with a mask of pixels, like detr's; no sample of a model without a mask counts as padded."""
    from parity.shapes import choose_samples

    padded = [sample for sample in choose_samples(subjects.subject("detr", "default").source) if sample.padding]
    assert {sample.padding for sample in padded} == {"left", "right", "mixed"}
    assert any((sample.inputs["pixel_mask"] == 0).any() for sample in padded)
    assert not any(sample.padding for sample in choose_samples(subjects.subject("vit", "default").source))


def test_names_that_contradict_themselves_are_noticed():
    """One name for two sizes, as in the old package's tables, makes the sizes inconsistent."""
    import torch

    from parity.samples import Sizes

    flat = {"a": torch.zeros(2, 8), "b": torch.zeros(2, 5)}
    assert Sizes({"a": {0: "batch", 1: "sequence"}, "b": {0: "batch"}}, flat).consistent
    assert not Sizes({"a": {0: "batch", 1: "sequence"}, "b": {0: "batch", 1: "sequence"}}, flat).consistent
    assert not Sizes({"a": {1: "sequence"}, "b": {1: "past + sequence"}}, flat).consistent


def test_token_types_and_tokens_are_known_by_their_roles():
    """Those of a decoder, and inputs with other names, vary like `token_type_ids` and `input_ids`."""
    import torch

    from parity.samples import SampleSource

    layout = SimpleNamespace(names=("decoder_token_type_ids",))
    assert SampleSource.token_types.fget(SimpleNamespace(_token_types=2, layout=layout)) == 2
    names = ("token_type_ids", "decoder_token_type_ids", "input_ids", "query_input_ids")
    flat = {name: torch.zeros(4, 32, dtype=torch.long) for name in names}
    source = SimpleNamespace(_vocabulary_of=lambda name: 96, _token_types=2, _special=set())
    SampleSource._vary(source, flat, torch.Generator().manual_seed(0))
    assert [name for name, tensor in flat.items() if len(tensor.unique()) < 2] == []


@pytest.mark.parametrize(
    ("architecture", "feature"), [("bert", "default"), ("gpt2", "causal-lm-with-past"), ("vit", "default")]
)
def test_only_the_last_samples_have_extreme_values(architecture, feature):
    """Relations are tried with at least eight samples of usual values, which come first."""
    from parity.shapes import choose_samples

    source = subjects.subject(architecture, feature).source
    extreme = [sample.extreme for sample in choose_samples(source)]
    assert extreme == sorted(extreme)
    assert extreme.count(False) >= 8
    assert any(extreme)


def test_extreme_ids_are_the_whole_vocabulary():
    """The first and the last id are always drawn, none twice before all others, and never padding."""
    source = subjects.subject("bert", "default").source
    ids = source.resize({"batch": 1, "sequence": 40}, seed=1, extreme=True).inputs["input_ids"][0]
    others = ids[1:-1].tolist()
    assert len(set(others)) == 38
    assert source.vocabulary - 1 in others
    assert 0 not in others  # it is padding
    long = source.resize({"batch": 6, "sequence": 40}, seed=1, extreme=True).inputs["input_ids"]
    assert {*long.flatten().tolist()} == {*range(1, source.vocabulary)}


def test_extreme_ids_are_those_of_each_table():
    """Marian's decoder has its own table, and its texts reach the end of it."""
    import torch

    from parity.samples import SampleSource

    source = SimpleNamespace(
        _vocabulary_of=lambda name: 50 if name.startswith("decoder_") else 96, _special={3}, _pad=0, masked=True
    )
    flat = {name: torch.full((2, 64), 3) for name in ("input_ids", "decoder_input_ids")}
    for tensor in flat.values():
        tensor[:, 1:] = 4
    SampleSource._vary(source, flat, torch.Generator().manual_seed(0), extreme=True)
    assert {name: int(tensor.max()) for name, tensor in flat.items()} == {"input_ids": 95, "decoder_input_ids": 49}
    assert {name: int(tensor[:, 1:].min()) for name, tensor in flat.items()} == {
        "input_ids": 1,
        "decoder_input_ids": 1,
    }


def test_usual_ids_are_drawn_from_the_whole_vocabulary():
    """Many draws reach all tenths of the vocabulary, and special tokens stay."""
    source = subjects.subject("bert", "default").source
    ids = source.resize({"batch": 30, "sequence": 40}, seed=1).inputs["input_ids"]
    tenths = {int(id) * 10 // source.vocabulary for id in ids[:, 1:-1].flatten()}
    assert tenths == {*range(10)}
    assert len(ids.unique()) > source.vocabulary // 2


def test_extreme_floats_are_large_in_every_second_row():
    """They reveal a clamp of images, sounds or caches; in a key, one channel of the last token is large."""
    image = subjects.subject("vit", "default").source
    pixels = image.resize({"batch": 8}, seed=1, extreme=True).inputs["pixel_values"]
    assert [bool(row.abs().max() > 10) for row in pixels] == [False, True] * 4
    text = subjects.subject("gpt2", "causal-lm-with-past").source
    ((key, value), *_) = text.resize({"batch": 8}, seed=1, extreme=True).inputs["past_key_values"]
    for cache in (key, value):
        assert [bool(row.abs().max() > 10) for row in cache] == [False, True] * 4
    heads, tokens = key.shape[1:3]
    assert (key[1].abs() > 10).nonzero().tolist() == [[head, tokens - 1, 0] for head in range(heads)]


def test_extreme_boxes_go_to_the_ends_of_their_tables():
    """The first word covers the whole page, so that both ends of every table are read."""
    source = subjects.subject("layoutlm", "default").source
    boxes = source.resize({"batch": 2, "sequence": 9}, seed=1, extreme=True).inputs["bbox"]
    assert boxes[:, 0].tolist() == [[0, 0, source._page, source._page]] * 2


def test_each_row_of_a_batch_is_padded_in_a_way_of_its_own():
    """More than half on either side, holes, both sides, and one row completely; no row is without padding."""
    source = subjects.subject("bert", "default").source
    sample = source.resize({"batch": 8, "sequence": 19}, padding="mixed", seed=1)
    mask = sample.inputs["attention_mask"]
    assert mask.sum(1).tolist() == [9, 9, 13, 14, 12, 15, 18, 0]
    assert ["".join(map(str, row)) for row in mask.tolist()][:4] == [
        "0000000000111111111",
        "1111111110000000000",
        "1011011011011011011",
        "0101110111011101111",
    ]
    ids = sample.inputs["input_ids"]
    assert (ids[0, :10] == 0).all()
    assert (ids[1, 9:] == 0).all()
    assert (ids[2] != 0).all()
    # Each truncated row keeps its end token, which some heads look for.
    assert [int(row[row != 0][-1]) for row in ids[:7]] == [int(ids[0, -1])] * 7


def test_a_past_is_padded_first():
    """Longer than that of the export, with later tokens unchanged; two rows have holes in the past."""
    source = subjects.subject("gpt2", "causal-lm-with-past").source
    sizes = {"batch": 8, "sequence": 3, "past_sequence": 25}
    padded, plain = (source.resize(sizes, padding=padding, seed=1).inputs for padding in ("mixed", ""))
    mask = padded["attention_mask"]
    assert mask[0].tolist() == [0] * 15 + [1] * 13
    assert (mask[2, :25] == 0).sum() > 5
    assert padded["input_ids"][0].equal(plain["input_ids"][0])
    assert padded["input_ids"][4].tolist()[1:] == [source._pad, source._pad]


def test_encoder_and_decoder_are_blank_in_other_rows():
    """The decoder's mask has holes too, and different rows of encoder and decoder are fully masked."""
    source = subjects.subject("bart", "default").source
    sample = source.resize({"batch": 8, "encoder_sequence": 19, "decoder_sequence": 17}, padding="mixed", seed=1).inputs
    blank = [(sample[name].sum(1) == 0).nonzero().flatten().tolist() for name in _MASKS]
    assert blank == [[7], [4]]
    assert "1011" in "".join(map(str, sample["decoder_attention_mask"].flatten().tolist()))


_MASKS = ("attention_mask", "decoder_attention_mask")


def test_short_rows_keep_a_token():
    """At any length, a row that is not fully masked attends to something."""
    from parity.padding import WAYS, row_mask

    for length in range(1, 20):
        masks = [row_mask(way, length) for way in WAYS if not way.whole]
        assert {len(mask) for mask in masks} == {length}
        assert min(int(mask.sum()) for mask in masks) >= 1


def test_long_rows_and_the_batch_are_chosen():
    """The longest text, one past each change, a past that leaves three tokens, the batch of eight, and two rows."""
    from parity.shapes import choose_samples

    def further(architecture, feature, **options):
        own = subjects.subject(architecture, feature)
        samples = choose_samples(own.source, longest=own.longest, **options)[9:]
        return [(dict(sample.sizes), sample.padding) for sample in samples]

    assert further("bert", "default") == [
        ({"batch": 1, "sequence": 40}, ""),
        ({"batch": 8, "sequence": 19}, "mixed"),
        ({"batch": 2, "sequence": 35}, "mixed"),
    ]
    assert further("gpt2", "causal-lm-with-past")[:2] == [
        ({"batch": 1, "sequence": 48, "past_sequence": 0}, ""),
        ({"batch": 1, "sequence": 3, "past_sequence": 45}, ""),
    ]
    (long,) = [s for s, padding in further("t5", "seq2seq-lm-with-past") if s["past_decoder_sequence"] > 32]
    assert (long["decoder_sequence"], long["past_decoder_sequence"]) == (3, 61)
    assert further("vit", "default") == [({"batch": 8}, "")]
    subjects.skip_without("modernbert")
    assert [sizes["sequence"] for sizes, padding in further("modernbert", "default") if not padding] == [4, 7]


def test_extent_is_what_the_samples_cover():
    """The shortest and longest text, the smallest and largest id; nothing for images."""
    from parity.extent import Extent
    from parity.shapes import choose_samples

    own = subjects.subject("gpt2", "causal-lm-with-past")
    samples = choose_samples(own.source, longest=own.longest)
    assert str(Extent.of_samples(samples)) == "tokens 1–48, ids 0–95"
    assert str(Extent.of_samples(samples[:1])) == "tokens 18–18, ids 0–0"
    assert str(Extent.of_samples(choose_samples(subjects.subject("vit", "default").source))) == ""


@pytest.mark.parametrize(
    ("architecture", "feature", "name"),
    [
        ("bert", "default", "input_ids"),
        ("bert", "multiple-choice", "input_ids"),
        ("gpt2", "causal-lm-with-past", "input_ids"),
        ("bart", "default", "input_ids"),
        ("bart", "default", "decoder_input_ids"),
    ],
)
def test_every_id_has_its_turn(monkeypatch, architecture, feature, name):
    """Thorough: pools of eight rows with every id of the table, also in the decoder's text."""
    from parity import thorough

    monkeypatch.setattr(thorough, "TOKENS_AT_ONCE", 7)
    own = subjects.subject(architecture, feature)
    pools = [*thorough.vocabulary_pools(own.source, own.longest)]
    ids = {int(i) for pool in pools for sample in pool for i in sample.inputs[name].flatten()}
    assert {len(pool) for pool in pools} == {8}
    assert ids == {*range(own.source.vocabulary)}


def test_no_vocabulary_has_no_turns():
    """Thorough pools do not exist for images."""
    from parity.thorough import vocabulary_pools

    assert [*vocabulary_pools(subjects.subject("vit", "default").source, None)] == []


def test_dummy_inputs_are_those_of_the_file():
    """An input that the tokenizer makes and the configuration does not declare is no argument of the model either."""
    from parity.samples import SampleSource

    bert, distilbert = (subjects.subject(name, "default") for name in ("bert", "distilbert"))
    source = SampleSource(distilbert.onnx_config, bert.preprocessor, distilbert.model.config)
    assert source.left_out == ("token_type_ids",)
    assert set(source.dummy) == set(source.layout.names) == {"input_ids", "attention_mask"}
    with_past = subjects.subject("gpt2", "causal-lm-with-past").source
    assert len(with_past.dummy["past_key_values"]) * 2 + 2 == len(with_past.layout.names)
