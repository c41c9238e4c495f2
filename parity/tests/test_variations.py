"""Declared variations: enough of them, of existing items, with values that change the model."""

import re
from dataclasses import replace

import pytest

from parity.architectures.conformance.fifty import FIFTY
from parity.architectures.conformance.matrix import cells
from parity.declaration import Variation, omit
from parity.environment import at_least
from parity.fixtures import configurations, profiles, selection
from parity.fixtures.checkpoints import tiny_config
from parity.registry import architecture, architectures

NAMES = [each.name for each in architectures()]
# Each is declared with the upstream thread that requires it.
MOST_REFUSALS = 15
MISSING = object()


def require_environment(name):
    if gap := architecture(name).gap:
        pytest.skip(gap)


def item_of(config, name, default=None):
    """The value of an item of a configuration, or of a nested configuration."""
    for part in name.split("."):
        config = getattr(config, part, default)
    return config


def features_of(declared, variation):
    """The features with which a variation is tried in this environment."""
    return [each for each in declared.features if variation.covers(feature=each) and not declared.gap_of(each)]


@pytest.mark.parametrize("name", NAMES)
def test_at_least_three_items_are_varied(name):
    """With every feature, and none of them twice."""
    declared = architecture(name)
    for feature in declared.features:
        items = [item for variation in declared.variations_of(feature) for item in variation.items]
        assert len(items) >= 3, feature
        assert len(items) == len(set(items)), feature


@pytest.mark.parametrize("name", NAMES)
def test_each_item_is_one_of_the_configuration(name):
    """Its class has the item, besides any others it accepts."""
    require_environment(name)
    declared, own = architecture(name), tiny_config(name)
    items = {item for each in declared.variations if features_of(declared, each) for item in each.items}
    assert {item for item in items if item_of(own, item, MISSING) is MISSING} == set()


def stands(value, expected):
    """Whether a configuration has a value; a dict value may have further entries."""
    if isinstance(expected, dict):
        return all(value[name] == each for name, each in expected.items())
    return (list(value) if isinstance(value, tuple) else value) == expected


@pytest.mark.parametrize("name", NAMES)
def test_each_value_makes_another_model(name):
    """Weights or answers differ from the declared configuration's, or the declaration explains why not.

    A value equal to the declared one belongs to the family, not to this architecture's variations.
    """
    require_environment(name)
    declared, own = architecture(name), tiny_config(name)
    silent = []
    for variation in declared.variations:
        features = features_of(declared, variation)
        for changes in map(variation.changes, variation.values if features and not variation.silent else ()):
            if all(stands(item_of(own, item), value) for item, value in changes.items()):
                continue
            if not any(configurations.has_effect(name, feature, changes) for feature in features):
                silent.append(changes)
    assert silent == []


def test_a_value_without_effect_is_found():
    """The control: dropout does not affect an exported model, positions do."""
    assert not configurations.has_effect("bert", "default", {"hidden_dropout_prob": 0.5})
    assert configurations.has_effect("bert", "default", {"hidden_act": "relu"})
    assert configurations.has_effect("bert", "default", {"max_position_embeddings": 9})


# What people export: architectures, item, and the values that must be drawn, if they are not the declared one.
REPORTED = (
    (("t5", "longt5", "mt5"), "feed_forward_proj", ("gated-gelu", "relu")),
    (("t5", "longt5", "mt5"), "d_kv", (7,)),
    (("t5", "longt5", "mt5"), "num_decoder_layers", (1,)),
    (("t5",), "tie_word_embeddings", (True, False)),
    (("llama",), "num_key_value_heads", (1, 2, 4)),
    (("bert",), "type_vocab_size", (1, 2)),
    (("deberta", "deberta-v2"), "pos_att_type", ([], ["c2p"], ["p2c"])),
    (("swin", "beit", "vit"), "image_size", ([24, 48],)),
    (("swin", "beit", "vit", "resnet", "convnext", "segformer"), "num_channels", (1,)),
    (("gpt2", "gptj", "gpt-neo", "bloom", "llama"), "pad_token_id", (None, -1)),
    (("gpt2", "codegen", "gptj"), "n_positions", (6, 9, 16, 64)),
    (("bert", "roberta", "gpt-neo", "bart"), "max_position_embeddings", (6, 9, 16, 64)),
    pytest.param(
        ("bert",),
        "position_embedding_type",
        ("relative_key",),
        marks=pytest.mark.skipif(at_least("transformers", "5"), reason="transformers 5 has absolute positions only"),
    ),
)


def values_of(declared, item):
    """All that is drawn of an item in this environment, and what is declared."""
    own = item_of(tiny_config(declared.name), item)
    return [
        own,
        *(
            changes[item]
            for each in declared.variations
            for changes in map(each.changes, each.values)
            if item in changes
        ),
    ]


@pytest.mark.parametrize(("names", "item", "values"), REPORTED, ids=lambda each: each if isinstance(each, str) else "")
def test_what_people_export_is_drawn(names, item, values):
    """The values that reports of failed exports are about."""
    for name in names:
        present = values_of(architecture(name), item)
        assert [value for value in values if value not in present] == [], name


@pytest.mark.skipif(not at_least("transformers", "5.16"), reason="rope_type has fewer values before transformers 5.16")
def test_each_rope_type_is_drawn():
    """All that transformers has; one that a new release brings is missing here."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    ropes = [each for each in values_of(architecture("llama"), "rope_parameters") if each]
    assert {each["rope_type"] for each in ropes} == {"default", *ROPE_INIT_FUNCTIONS}


def test_the_fifty_are_among_them():
    """All architectures of the document."""
    assert set(FIFTY) <= set(NAMES)


def test_few_configurations_are_refused():
    """Each of them is drawn, if the installed transformers has its item."""
    declared = [(each, refusal) for each in architectures() for refusal in each.refusals]
    assert len({(each.name, refusal.issue) for each, refusal in declared}) <= MOST_REFUSALS
    for each in {each.name: each for each, _ in declared}.values():
        drawn = [changes for v in each.variations if features_of(each, v) for changes in map(v.changes, v.values)]
        refused = {each.refusal_of(tiny_config(each.name, changes)) for changes in drawn} - {""}
        assert {refusal.issue for refusal in each.refusals} == {
            sentence.rpartition("(")[2][:-1] for sentence in refused
        }


def test_a_variation_that_says_nothing_is_refused():
    """Without a value, without an item, or with fewer values than items."""
    for wrong in (("hidden_act", ()), ("", (1,)), (("d_kv", "num_heads"), ((1, 2), (3,)))):
        with pytest.raises(ValueError, match="variation"):
            Variation(*wrong)
    with pytest.raises(ValueError, match="telepathy"):
        Variation("hidden_act", ("relu",), features=("telepathy",))


def test_a_family_shares_its_variations_but_for_some():
    """By the names of their items, also for a variation that changes several."""
    one, two, three = Variation("a", (1,)), Variation(("b", "c"), ((1, 2),)), Variation("d", (1,))
    assert omit((one, two, three), "c", "d") == (one,)
    assert two.changes((1, 2)) == {"b": 1, "c": 2}
    assert three.changes([1]) == {"d": [1]}


REFUSED = {
    "ibert": ({"quant_mode": True}, "ibert: quant_mode is true: "),
    "llama": ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "llama: rope_.*.rope_type is dynamic: "),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_refusal_of_a_configuration_is_one_sentence(name):
    """With the item, its value and the thread; also for nested items."""
    changes, beginning = REFUSED[name]
    declared = architecture(name)
    sentence = declared.refusal_of(tiny_config(name, changes))
    assert re.match(beginning, sentence)
    assert sentence.endswith(f"({declared.refusals[0].issue})")
    assert declared.refusal_of(tiny_config(name)) == ""


def test_an_architecture_that_varies_nothing_has_no_such_check(monkeypatch):
    """Such as one of another package; the nightly profile adds features, but no opset."""
    cell = next(cell for cell in cells() if cell.id == "bert-masked-lm-onnx17")
    other = replace(cell, opset=18)
    every = selection.Selection(varied=True, every_opset=False, every_feature=False, nightly=False)
    assert not every.has(cell)
    monkeypatch.setenv(profiles.VARIABLE, profiles.NIGHTLY)
    assert every.has(cell)
    assert not every.has(other)
    monkeypatch.setattr(selection, "architecture", lambda name: replace(architecture(name), variations=()))
    assert not every.has(cell)
