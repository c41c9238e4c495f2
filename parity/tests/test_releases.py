"""Names that differ between transformers releases: one module handles them, all others use ours."""

import ast
import inspect
import itertools
from pathlib import Path

import pytest

from parity import declaration, environment, releases
from parity.environment import at_least
from parity.registry import architecture, architectures

ROOT = Path(__file__).parents[2]
TRUTH_VALUES = {"mbart", "m2m-100", "big-bird"}
PILLOW = {"layoutlmv3", "detr", "imagegpt"}


def branches(source):
    """The lines that decide by the version of transformers; mentioning the version is allowed."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "__version__" and ast.unparse(node.value) == "transformers":
            yield node.lineno
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            about = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            if name in ("at_least", "meets") and any(text.startswith("transformers") for text in about):
                yield node.lineno
        if isinstance(node, (ast.Compare, ast.If, ast.IfExp)):
            deciding = node if isinstance(node, ast.Compare) else node.test
            yield from (deciding.lineno for each in ast.walk(deciding) if _asks_version(each))


def _asks_version(node):
    return isinstance(node, ast.Call) and ast.unparse(node) in (
        'version_of("transformers")',
        "version_of('transformers')",
    )


def library():
    """The modules that users run: neither tests, nor fixtures and reports of the suite."""
    for folder in ("parity", "architectures"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            inside = path.relative_to(ROOT / folder)
            if inside.parts[0] != "tests" and not inside.name.startswith("test_"):
                yield path


def test_one_module_asks_which_transformers_is_installed():
    """Only `parity/releases.py`, apart from records, messages and requirements in declarations."""
    found = {path.relative_to(ROOT).as_posix(): list(branches(path.read_text(encoding="utf-8"))) for path in library()}
    assert len(found) > 90
    assert {path for path, lines in found.items() if lines} == {"parity/releases.py"}


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ('x = 1 if at_least("transformers", "5") else 2', 1),
        ('if environment.meets("transformers>=5; torch<3"): pass', 1),
        ('old = Version(version_of("transformers")) < Version("5")', 1),
        ("old = transformers.__version__ < '5'", 1),
        ("print(f\"transformers {version_of('transformers')}\")", 0),
        ('x = at_least("torch", "2")', 0),
        ('Architecture(sdpa="transformers>=5")', 0),
    ],
)
def test_a_branch_would_be_seen(line, count):
    """Each form of the decision is found; a message, another package and a requirement are not."""
    assert len(list(branches(line))) == count


class Old:
    def forward(self, input_ids, past_key_values=None, use_cache=None):
        pass


class New:
    def forward(self, input_ids, cache=None, use_cache=None):
        pass


@pytest.fixture(params=["4.57.6", "5.23.0", "5.24.0"])
def release(request, monkeypatch):
    """Each of three releases, as `parity.releases` sees it."""
    from packaging.version import Version

    def at_least(package, minimum):
        return Version(request.param) >= Version(minimum)

    monkeypatch.setattr(releases, "at_least", at_least)
    remembering = releases.parameters_of, releases._takes_cache
    for function in remembering:
        function.cache_clear()
    yield request.param
    for function in remembering:
        function.cache_clear()


def test_caches_have_one_name(release):
    """`cache` of 5.24 becomes `past_key_values`; before, an argument of that name is no cache."""
    assert releases.parameters_of(Old) == ("input_ids", "past_key_values", "use_cache")
    renamed = "past_key_values" if release == "5.24.0" else "cache"
    assert releases.parameters_of(New) == ("input_ids", renamed, "use_cache")


def test_arguments_have_the_names_of_forward(release):
    """Past key values get the name in this model's `forward`; without any, no argument is added."""
    past = [(1, 2)]

    class Stub:
        layers = ()

    for kind, name in ((Old, "past_key_values"), (New, "cache")):
        if kind is New and release != "5.24.0":
            continue
        arguments = releases.arguments_of(kind, {"input_ids": 0, "past_key_values": Stub()})
        assert list(arguments) == ["input_ids", name]
        assert releases.arguments_of(kind, {"input_ids": 0, "past_key_values": None}) == {"input_ids": 0}
    assert releases.with_our_names({"past_key_values": past}) == {"past_key_values": past}
    assert list(releases.with_our_names({"cache": past})) == ["past_key_values" if release == "5.24.0" else "cache"]


@pytest.mark.parametrize(
    ("version", "supports", "kind"),
    [
        ("4.46.3", True, tuple),
        ("4.49.0", False, tuple),
        ("4.49.0", True, "DynamicCache"),
        ("4.50.3", False, "DynamicCache"),
        ("4.55.4", False, "DynamicCache"),
        # The installed release: the constructor added in 4.56 cannot be emulated in another.
        ("", False, "DynamicCache" if at_least("transformers", "4.50") else tuple),
    ],
)
def test_caches_are_what_the_release_takes(monkeypatch, version, supports, kind):
    """Tuples or an object, from either form, with the same layers in the same order."""
    import torch
    from packaging.version import Version

    if version:
        monkeypatch.setattr(releases, "at_least", lambda package, minimum: Version(version) >= Version(minimum))
    layers = [(torch.full((1, 2, 3, 4), 2.0 * n), torch.full((1, 2, 3, 4), 2.0 * n + 1)) for n in range(2)]
    owner = type("Stub", (), {"_supports_cache_class": supports})
    for past in (layers, releases.to_cache(layers)):
        taken = releases._past_of(owner, past)
        assert isinstance(taken, tuple) if kind is tuple else type(taken).__name__ == kind
        found = taken if kind is tuple else releases.from_cache(taken)
        assert [[float(array[0, 0, 0, 0]) for array in layer] for layer in found] == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("version", "has_cache"), [("4.53.3", False), ("4.54.1", True), ("4.57.6", True), ("5.0.0", False)]
)
def test_imagegpt_is_given_an_empty_cache_where_it_asks_for_its_length(monkeypatch, version, has_cache):
    """Only in those releases, and for no other model."""
    from packaging.version import Version

    monkeypatch.setattr(releases, "at_least", lambda package, minimum: Version(version) >= Version(minimum))
    kinds = [type(name, (Old,), {}) for name in ("ImageGPTModel", "GPT2Model")]
    calls = [releases.arguments_of(kind, {"input_ids": 0}) for kind in kinds]
    assert ["past_key_values" in arguments for arguments in calls] == [has_cache, False]
    if has_cache:
        assert calls[0]["past_key_values"].get_seq_length() == 0


class Translator:
    def forward(self, input_ids, decoder_input_ids=None, past_key_values=None, use_cache=None):
        pass


@pytest.mark.parametrize(
    ("version", "has_cache"), [("4.55.4", False), ("4.56.0", True), ("4.56.2", True), ("4.57.6", False)]
)
def test_encoder_decoders_get_an_empty_cache_where_theirs_has_the_layers_of_the_encoder(
    monkeypatch, version, has_cache
):
    """Only in 4.56, and for no other model; the cache grows with every layer."""
    from packaging.version import Version

    monkeypatch.setattr(releases, "at_least", lambda package, minimum: Version(version) >= Version(minimum))
    past = {kind: releases.arguments_of(kind, {"input_ids": 0}).get("past_key_values") for kind in (Translator, Old)}
    assert [cache is not None for cache in past.values()] == [has_cache, False]
    if has_cache:
        import torch

        keys = torch.zeros(1, 1, 1, 1)
        for layer in range(3):
            past[Translator].self_attention_cache.update(keys, keys, layer)
            past[Translator].cross_attention_cache.update(keys, keys, layer)
        assert len(releases.from_cache(past[Translator])) == 3


@pytest.mark.parametrize(
    ("installed", "missing"),
    [
        ({"transformers": "5.4.0", "huggingface-hub": "1.33.0"}, {*TRUTH_VALUES, *PILLOW}),
        ({"transformers": "5.4.0", "huggingface-hub": "1.8.0"}, PILLOW),
        ({"transformers": "5.4.0", "huggingface-hub": "1.33.0", "torchvision": "0.26.0"}, TRUTH_VALUES),
        ({"transformers": "5.5.4", "huggingface-hub": "1.33.0"}, set()),
    ],
)
def test_architectures_that_5_4_loads_only_with_other_packages(monkeypatch, installed, missing):
    """The message has what to install."""
    names = (*TRUTH_VALUES, *PILLOW, "bart", "vit")
    monkeypatch.setattr(environment, "version_of", installed.get)
    monkeypatch.setattr(declaration, "version_of", installed.get)
    # Each call of the original remembers its result.
    monkeypatch.setattr(declaration, "meets", environment.meets.__wrapped__)
    gaps = {name: architecture(name).gap for name in names}
    assert {name for name, gap in gaps.items() if gap} == {*missing}
    if "mbart" in missing:
        message = "mbart needs transformers!=5.4.0 or huggingface-hub<1.9; transformers 5.4.0 is installed"
        assert gaps["mbart"] == message


@pytest.mark.parametrize(("missing", "message"), [("bert needs more", "bert needs more"), ("", "cannot be loaded")])
def test_a_configuration_is_not_blamed_for_what_a_release_cannot_load(missing, message, monkeypatch, tmp_path):
    """Its own fault is reported only if the architecture exists in this environment."""
    from transformers import AutoConfig

    from parity.errors import ParityError
    from parity.fixtures.checkpoints import save_checkpoint
    from parity.loading import load_config

    def refuse(*args, **options):
        raise ValueError("Field 'hidden_size' expected int, got bool (value: True)")

    save_checkpoint(tmp_path, "bert", "default")
    monkeypatch.setattr(AutoConfig, "from_pretrained", refuse)
    monkeypatch.setattr(declaration.Architecture, "gap", property(lambda self: missing if self.name == "bert" else ""))
    with pytest.raises(ParityError, match=message) as caught:
        load_config(str(tmp_path))
    assert ("hidden_size" in str(caught.value)) is not bool(missing)


def test_outputs_have_one_name():
    """Any model's caches become `present`; an output named `cache` that is none keeps its name."""

    class Layer:
        keys, values = "k", "v"

    class Cache:
        layers = (Layer, Layer)

    told = [("k", "v"), ("k", "v")]
    for name in ("past_key_values", "cache"):
        assert dict(releases.outputs_of({"logits": 1, name: Cache()})) == {"logits": 1, "present": told}
    assert dict(releases.outputs_of({"past_key_values": (("k", "v"),)})) == {"present": (("k", "v"),)}
    assert dict(releases.outputs_of({"cache": 3})) == {"cache": 3}


def test_models_of_this_release_have_our_name():
    """Every model with a past takes `past_key_values` under our names, and no `cache` in addition."""
    from parity.features import heads
    from parity.fixtures.checkpoints import tiny_config

    count = 0
    for declared in architectures():
        for feature in declared.features:
            if not feature.endswith("-with-past") or declared.gap_of(feature):
                continue
            (kind,) = heads(tiny_config(declared.model_type), feature)
            names = releases.parameters_of(kind)
            assert ("past_key_values" in names, "cache" in names) == (True, False), kind
            count += 1
    assert count > 30


def test_both_names_are_never_given_at_once():
    """A custom model whose forward has both arguments keeps both."""

    class Both:
        def forward(self, past_key_values=None, cache=None):
            pass

    assert releases.parameters_of(Both) == ("past_key_values", "cache")
    assert list(releases.arguments_of(Both, {"cache": 1})) == ["cache"]


@pytest.mark.parametrize("padded", [False, True])
def test_masks_by_broadcasting_are_those_of_each_index(padded):
    """A mask function called once on broadcast indices gives the same as index by index."""
    import torch

    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1]]).bool()

    def function(batch, head, query, key):
        return (key <= query) & mask[batch, key] if padded else key <= query

    indices = torch.arange(2), torch.arange(1), torch.arange(3, 7), torch.arange(7)
    by_index = torch.zeros(2, 1, 4, 7, dtype=torch.bool)
    for place in itertools.product(range(2), range(1), range(4), range(7)):
        by_index[place] = function(*(index[at] for index, at in zip(indices, place, strict=True)))
    by_broadcast = releases._broadcast(function)(*indices)
    assert torch.equal(by_broadcast, by_index)
    assert not torch.equal(by_broadcast, by_index.flip(-1))


def mapping_functions(masking):
    """The functions of transformers that map masks with `torch.vmap`, which no tracer can follow, by name."""
    functions = {name: each for name, each in vars(masking).items() if inspect.isfunction(each)}
    own = {name: each for name, each in functions.items() if each.__module__ == masking.__name__}
    return {name: each for name, each in own.items() if "torch.vmap(" in inspect.getsource(each)}


@pytest.mark.skipif(not at_least("transformers", "4.53"), reason="before 4.53 no mask is mapped")
def test_no_function_that_maps_masks_is_left():
    """Whatever this release calls them, all are replaced inside and are back afterwards."""
    from transformers import masking_utils

    before = mapping_functions(masking_utils)
    assert before
    with releases.traceable_masks():
        assert mapping_functions(masking_utils) == {}
    assert mapping_functions(masking_utils) == before


def class_of(name, *bases):
    """A class that takes options if it has no base of its own, as the Auto classes of transformers do."""

    def from_config(cls, config, **options):
        return config, options

    def from_config_alone(cls, config):
        raise AssertionError("its own takes no options")

    return type(name, bases, {"from_config": classmethod(from_config_alone if bases else from_config)})


@pytest.mark.skipif(not at_least("transformers", "4.54"), reason="before 4.54 the class takes options itself")
def test_options_reach_the_class_that_takes_them():
    """A deprecated class without options is passed over; the control: of any other name it is not."""
    base = class_of("_AutoModelForVision2Seq")
    deprecated, other = (class_of(name, base) for name in ("AutoModelForVision2Seq", "AutoModel"))
    assert releases.constructor_of(deprecated)(1, attn_implementation="eager") == (1, {"attn_implementation": "eager"})
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        releases.constructor_of(other)(1, attn_implementation="eager")


@pytest.mark.parametrize("hidden", [False, True])
def test_image_processors_are_loaded_without_torchvision(monkeypatch, tmp_path, hidden):
    """From 5.4 to 5.17 the name in transformers is a stand-in that asks for Torchvision; the class itself does not."""
    import transformers

    from parity.fixtures.checkpoints import save_checkpoint
    from parity.loading import load_preprocessor

    class StandIn:
        def from_pretrained(self, *arguments, **options):
            raise ImportError("AutoImageProcessor requires the Torchvision library")

    save_checkpoint(tmp_path, "vit")
    if hidden:
        monkeypatch.setattr(transformers, "AutoImageProcessor", StandIn())
        with pytest.raises(ImportError, match="Torchvision"):
            transformers.AutoImageProcessor.from_pretrained(tmp_path)
    assert "ViTImageProcessor" in type(load_preprocessor(str(tmp_path), "image_processor", None)).__name__
