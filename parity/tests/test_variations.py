"""What declarations vary: enough of it, items that configurations have, and values that make another model."""

import pytest

from parity.architectures.conformance.fifty import FIFTY
from parity.declaration import Refusal, Variation, omit
from parity.fixtures import configurations
from parity.fixtures.checkpoints import tiny_config
from parity.registry import architecture, architectures

NAMES = [each.name for each in architectures()]
# Each is declared with an upstream thread that makes it necessary.
MOST_REFUSALS = 15


def require_environment(name):
    if gap := architecture(name).gap:
        pytest.skip(gap)


def item_of(config, name):
    """The value of an item of a configuration, or of a nested one; raises AttributeError if there is none."""
    for part in name.split("."):
        config = getattr(config, part)
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
    """It stands there with the value that a drawn configuration gives it."""
    require_environment(name)
    declared = architecture(name)
    own = tiny_config(name)
    for variation in declared.variations:
        if not features_of(declared, variation):
            continue
        for changes in map(variation.changes, variation.values):
            config = tiny_config(name, changes)
            for item, value in changes.items():
                assert hasattr(own, item.partition(".")[0]), item
                assert item_of(own, item) is not NotImplemented
                assert stands(item_of(config, item), value), f"{item}: got {item_of(config, item)}, should be {value}"


def stands(value, expected):
    """Whether a configuration has a value; it may complete those that are made of several."""
    if isinstance(expected, dict):
        return all(value[name] == each for name, each in expected.items())
    return (list(value) if isinstance(value, tuple) else value) == expected


@pytest.mark.parametrize("name", NAMES)
def test_each_value_makes_another_model(name):
    """Its weights or its answers are others than those of the declared configuration, unless the declaration says why
    they are not; a value that is the declared one is no variation of this architecture, but of its family."""
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
    """The control: dropout has no part in a model that is exported, positions have."""
    assert not configurations.has_effect("bert", "default", {"hidden_dropout_prob": 0.5})
    assert configurations.has_effect("bert", "default", {"hidden_act": "relu"})
    assert configurations.has_effect("bert", "default", {"max_position_embeddings": 9})


def test_the_fifty_are_among_them():
    """Those of the document."""
    assert set(FIFTY) <= set(NAMES)


def test_few_configurations_are_refused():
    """Each is drawn."""
    declared = [(each, refusal) for each in architectures() for refusal in each.refusals]
    assert len(declared) <= MOST_REFUSALS
    for each, refusal in declared:
        values = [value for v in each.variations for value in v.values if refusal.item in v.items]
        assert any(each.refusal_of(tiny_config(each.name, {refusal.item: value})) for value in values)


def test_a_variation_that_says_nothing_is_refused():
    """Without a value, without an item, or with fewer values than items."""
    for wrong in (("hidden_act", ()), ("", (1,)), (("d_kv", "num_heads"), ((1, 2), (3,)))):
        with pytest.raises(ValueError, match="variation"):
            Variation(*wrong)
    with pytest.raises(ValueError, match="telepathy"):
        Variation("hidden_act", ("relu",), features=("telepathy",))


def test_a_family_shares_its_variations_but_for_some():
    """By the names of their items, of one that changes several with others too."""
    one, two, three = Variation("a", (1,)), Variation(("b", "c"), ((1, 2),)), Variation("d", (1,))
    assert omit((one, two, three), "c", "d") == (one,)
    assert two.changes((1, 2)) == {"b": 1, "c": 2}
    assert three.changes([1]) == {"d": [1]}


def test_the_refusal_of_a_configuration_is_one_sentence():
    """With the item, its value and the thread."""
    refusal = Refusal("quant_mode", True, "why", "https://example.org/1")
    declared = architecture("ibert")
    assert declared.refusals[0].item == refusal.item
    sentence = declared.refusal_of(tiny_config("ibert", {"quant_mode": True}))
    assert "quant_mode is true" in sentence
    assert declared.refusal_of(tiny_config("ibert")) == ""
