"""From a configuration to lengths to test: one past each length it names, the longest of the table, no others."""

from types import SimpleNamespace

import pytest

from parity.configs.lengths import Change, Lengths, changes_of, lengths_to_try
from parity.registry import architecture as find
from parity.releases import loops_over_the_batch

# Kind → (items of a configuration, lengths at which the model changes → the item that says so).
KINDS = {
    "nothing": ({}, {}),
    "a position table alone": ({"max_position_embeddings": 512}, {}),
    "a causal window": ({"sliding_window": 64}, {64: "sliding_window"}),
    "a window that is not used": ({"sliding_window": 64, "use_sliding_window": False}, {}),
    "a window that is none": ({"sliding_window": None}, {}),
    "a window that is a truth value": ({"sliding_window": True}, {}),
    "a window for each layer": ({"attention_window": [6, 12, 6]}, {6: "attention_window", 12: "attention_window"}),
    "a window in two halves": ({"local_attention": 128}, {128: "local_attention"}),
    "a window of some layers": ({"window_size": 5}, {5: "window_size"}),
    "a radius": ({"local_radius": 4, "global_block_size": 8}, {5: "local_radius", 8: "global_block_size"}),
    "distances in buckets": (
        {"relative_attention_num_buckets": 32, "relative_attention_max_distance": 128},
        {32: "relative_attention_num_buckets", 128: "relative_attention_max_distance"},
    ),
    "distances that are not limited": ({"max_relative_positions": -1, "position_buckets": 8}, {8: "position_buckets"}),
    "blocks": (
        {"attention_type": "block_sparse", "block_size": 4, "num_random_blocks": 1},
        {28: "block_size"},
    ),
    "blocks that are not used": ({"attention_type": "original_full", "block_size": 4, "num_random_blocks": 1}, {}),
    "chunks": ({"attention_chunk_size": 16}, {16: "attention_chunk_size"}),
    "positions that are rescaled from a length on": (
        {"original_max_position_embeddings": 40, "rope_scaling": {"rope_type": "longrope"}},
        {40: "original_max_position_embeddings"},
    ),
    "the same as transformers 5 has it": (
        {"rope_parameters": {"rope_type": "yarn", "original_max_position_embeddings": 40}},
        {40: "original_max_position_embeddings"},
    ),
    "the same for each type of layer": (
        {"rope_parameters": {"full_attention": {"rope_type": "yarn", "original_max_position_embeddings": 40}}},
        {40: "original_max_position_embeddings"},
    ),
    "positions that grow with the text": (
        {"max_position_embeddings": 48, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
        {48: "max_position_embeddings"},
    ),
    "positions that do not": ({"max_position_embeddings": 48, "rope_parameters": {"rope_type": "linear"}}, {}),
    "one length twice": ({"sliding_window": 64, "chunk_size": 64}, {64: "chunk_size"}),
}


def configuration(**items):
    """A configuration with only these items."""
    return SimpleNamespace(**items)


@pytest.mark.parametrize("kind", KINDS)
def test_changes(kind):
    """Each kind of configuration gives the lengths at which its model changes; unused items give none."""
    items, reference = KINDS[kind]
    assert {change.length: change.item for change in changes_of(configuration(**items))} == reference


@pytest.mark.parametrize(
    ("items", "longest", "options", "tokens"),
    [
        ({}, None, {}, (64,)),
        ({}, 40, {}, (40,)),
        ({}, 512, {}, (512,)),
        ({}, 4096, {}, (512,)),
        ({}, 4096, {"thorough": True}, (4096,)),
        ({}, 512, {"big": True}, (128,)),
        ({}, 512, {"big": True, "thorough": True}, (512,)),
        ({}, None, {"big": True}, (64,)),
        ({"sliding_window": 6}, 40, {}, (7, 40)),
        ({"sliding_window": 6}, None, {}, (7,)),
        ({"sliding_window": 6, "chunk_size": 9}, None, {}, (7, 10)),
        ({"sliding_window": 128}, None, {"big": False}, (129,)),
        # One more than the longest text is no length.
        ({"sliding_window": 39}, 40, {}, (40,)),
        ({"sliding_window": 40}, 40, {}, (40,)),
        ({"sliding_window": 2047}, None, {}, (2048,)),
    ],
)
def test_lengths(items, longest, options, tokens):
    """The longest of the table, at most 512 or 128, and one past each change; 64 if nothing is named."""
    lengths = lengths_to_try(configuration(**items), longest, **options)
    assert (lengths.tokens, lengths.untried) == (tokens, {})


@pytest.mark.parametrize(("big", "limit"), [(False, "2,048"), (True, "128")])
def test_what_is_too_long_is_untried(big, limit):
    """A change beyond the limit is listed with the reason, and the default length is tried."""
    lengths = lengths_to_try(configuration(sliding_window=2048), None, big=big)
    assert lengths.tokens == (64,)
    assert lengths.untried == {Change(2048, "sliding_window"): f"no text of more than {limit} tokens is tried"}
    thorough = lengths_to_try(configuration(sliding_window=500), None, big=big, thorough=True)
    assert (thorough.tokens, thorough.untried) == ((501,), {})


def test_the_text_of_a_larger_model_is_asked():
    """If a configuration has a part for texts, that part decides the lengths."""
    text = configuration(sliding_window=6)
    assert changes_of(configuration(get_text_config=lambda: text, sliding_window=9)) == [Change(6, "sliding_window")]


@pytest.mark.parametrize(
    ("architecture", "items"),
    [
        ("bert", set()),
        ("deberta", {"max_relative_positions"}),
        ("gpt_neo", {"window_size"}),
        ("longformer", {"attention_window"}),
        ("longt5", {"local_radius", "global_block_size", "relative_attention_max_distance"}),
        ("modernbert", {"local_attention"}),
    ],
)
def test_configurations_of_transformers_are_read(architecture, items):
    """Tiny checkpoints have the items under the names in the rule, in every release."""
    from parity.fixtures import subjects
    from parity.fixtures.checkpoints import tiny_config

    subjects.skip_without(architecture)
    assert {change.item for change in changes_of(tiny_config(architecture))} >= items


# Those whose variations name lengths.
CHANGING = ("big-bird", "deberta", "deberta-v2", "gpt-neo", "llama", "longformer", "longt5", "modernbert", "t5")


def drawn_subjects(name):
    """The tiny model of each drawn value with which a configuration names lengths, for the first feature."""
    from parity.fixtures.checkpoints import tiny_config
    from parity.fixtures.subjects import fresh_subject

    declared = find(name)
    feature = declared.features[0]
    for variation in declared.variations_of(feature):
        for changes in map(variation.changes, variation.values):
            config = tiny_config(name, changes)
            if changes_of(config) != changes_of(tiny_config(name)) and not declared.refusal_of(config):
                yield fresh_subject(name, feature, changes=changes)


def unreached(subject, lengths=None):
    """The changes that the model's texts are long enough for, and none of the samples is."""
    from parity.shapes import choose_samples

    tokens = max(each.tokens for each in choose_samples(subject.source, longest=subject.longest, lengths=lengths))
    limit = subject.longest or 10**6
    return [each for each in changes_of(subject.model.config) if tokens <= each.length < limit]


@pytest.mark.parametrize("name", CHANGING)
def test_samples_of_drawn_configurations_reach_their_changes(name):
    """Each length at which a model changes with a value that is drawn, as far as its position table goes."""
    if gap := find(name).gap:
        pytest.skip(gap)
    if name == "big-bird" and loops_over_the_batch():
        pytest.skip("before transformers 5.13 no drawn value of BigBird names a length: block_sparse is refused")
    subjects = list(drawn_subjects(name))
    assert subjects
    assert {str(dict(each.changes)): unreached(each) for each in subjects if unreached(each)} == {}


def test_samples_of_the_usual_lengths_do_not():
    """The control: without the rule, the longest distance of T5 and the windows of LongT5 are beyond all texts."""
    short = Lengths((1,), {})
    for name in ("t5", "longt5"):
        assert any(unreached(each, short) for each in drawn_subjects(name)), name
