"""The public names of `transformers.onnx` 4.46.3, as data, compared with those of `parity.onnx`."""

import importlib
import inspect
import shutil
import subprocess
import sys
from ctypes import c_float

import pytest

import parity.onnx
from parity import registry
from parity.architectures.distilbert import DistilBertOnnxConfig
from parity.environment import version_of
from parity.features import _ModelTypes
from parity.fixtures.checkpoints import save_checkpoint, tiny_config, tiny_model
from parity.fixtures.preprocessors import preprocessor
from parity.onnx import convert, features, utils
from parity.onnx.config import OnnxConfig
from parity.onnx.features import FeaturesManager

PACKAGE = (
    "EXTERNAL_DATA_FORMAT_SIZE_LIMIT",
    "FeaturesManager",
    "OnnxConfig",
    "OnnxConfigWithPast",
    "OnnxSeq2SeqConfigWithPast",
    "ParameterFormat",
    "PatchingSpec",
    "compute_serialized_parameters_size",
    "export",
    "validate_model_outputs",
)

_INIT = "(self, config, task='default', patching_specs=None"
_TEXT = "(self, tokenizer, batch_size=-1, seq_length=-1, is_pair=False, framework=None)"
_EXPORT = "(preprocessor, model, config, opset, output, tokenizer=None"

# Dotted name → parameters with their defaults, as in Python source.
SIGNATURES = {
    "config.PatchingSpec.__init__": "(self, o, name, custom_op, orig_op=None, op_wrapper=None)",
    "config.OnnxConfig.__init__": f"{_INIT})",
    "config.OnnxConfig.from_model_config": "(config, task='default')",
    "config.OnnxConfig.use_external_data_format": "(num_parameters)",
    "config.OnnxConfig.generate_dummy_inputs": (
        "(self, preprocessor, batch_size=-1, seq_length=-1, num_choices=-1, is_pair=False, framework=None,"
        " num_channels=3, image_width=40, image_height=40, sampling_rate=22050, time_duration=5.0, frequency=220,"
        " tokenizer=None)"
    ),
    "config.OnnxConfig._generate_dummy_images": (
        "(self, batch_size=2, num_channels=3, image_height=40, image_width=40)"
    ),
    "config.OnnxConfig._generate_dummy_audio": (
        "(self, batch_size=2, sampling_rate=22050, time_duration=5.0, frequency=220)"
    ),
    "config.OnnxConfig.generate_dummy_inputs_onnxruntime": "(self, reference_model_inputs)",
    "config.OnnxConfig.patch_ops": "(self)",
    "config.OnnxConfig.restore_ops": "(self)",
    "config.OnnxConfig.flatten_output_collection_property": "(name, field)",
    "config.OnnxConfigWithPast.__init__": f"{_INIT}, use_past=False)",
    "config.OnnxConfigWithPast.with_past": "(config, task='default')",
    "config.OnnxConfigWithPast.generate_dummy_inputs": _TEXT,
    "config.OnnxConfigWithPast.fill_with_past_key_values_": (
        "(self, inputs_or_outputs, direction, inverted_values_shape=False)"
    ),
    "config.OnnxConfigWithPast._flatten_past_key_values_": "(self, flattened_output, name, idx, t)",
    "config.OnnxConfigWithPast.flatten_output_collection_property": "(self, name, field)",
    "config.OnnxSeq2SeqConfigWithPast.__init__": f"{_INIT}, use_past=False)",
    "config.OnnxSeq2SeqConfigWithPast.with_past": "(config, task='default')",
    "config.OnnxSeq2SeqConfigWithPast.generate_dummy_inputs": _TEXT,
    "config.OnnxSeq2SeqConfigWithPast.fill_with_past_key_values_": "(self, inputs_or_outputs, direction)",
    "config.OnnxSeq2SeqConfigWithPast._flatten_past_key_values_": "(self, flattened_output, name, idx, t)",
    "convert.check_onnxruntime_requirements": "(minimum_version)",
    "convert.export_pytorch": f"{_EXPORT}, device='cpu')",
    "convert.export_tensorflow": f"{_EXPORT})",
    "convert.export": f"{_EXPORT}, device='cpu')",
    "convert.validate_model_outputs": (
        "(config, preprocessor, reference_model, onnx_model, onnx_named_outputs, atol, tokenizer=None)"
    ),
    "convert.ensure_model_and_config_inputs_match": "(model, model_inputs)",
    "features.supported_features_mapping": "(*supported_features, onnx_config_cls=None)",
    "features.FeaturesManager.get_supported_features_for_model_type": "(model_type, model_name=None)",
    "features.FeaturesManager.feature_to_task": "(feature)",
    "features.FeaturesManager._validate_framework_choice": "(framework)",
    "features.FeaturesManager.get_model_class_for_feature": "(feature, framework='pt')",
    "features.FeaturesManager.determine_framework": "(model, framework=None)",
    "features.FeaturesManager.get_model_from_feature": "(feature, model, framework=None, cache_dir=None)",
    "features.FeaturesManager.check_supported_model_or_raise": "(model, feature='default')",
    "features.FeaturesManager.get_config": "(model_type, feature)",
    "utils.compute_effective_axis_dimension": "(dimension, fixed_dimension, num_token_to_add=0)",
    "utils.compute_serialized_parameters_size": "(num_parameters, dtype)",
    "utils.get_preprocessor": "(model_name)",
}

PROPERTIES = {
    "config.OnnxConfig": (
        "inputs",
        "outputs",
        "values_override",
        "default_batch_size",
        "default_sequence_length",
        "default_num_choices",
        "default_onnx_opset",
        "atol_for_validation",
        "is_torch_support_available",
    ),
    "config.OnnxConfigWithPast": ("outputs", "values_override", "num_layers", "num_attention_heads"),
    "config.OnnxSeq2SeqConfigWithPast": ("outputs", "num_layers", "num_attention_heads"),
    "utils.ParameterFormat": ("size",),
}

CONSTANTS = {
    "config.DEFAULT_ONNX_OPSET": 11,
    "config.EXTERNAL_DATA_FORMAT_SIZE_LIMIT": 2**31,
    "config.OnnxConfig.default_fixed_batch": 2,
    "config.OnnxConfig.default_fixed_sequence": 8,
    "config.OnnxConfig.default_fixed_num_choices": 4,
    "config.OnnxConfig.torch_onnx_minimum_version": "1.8",
    "convert.ORT_QUANTIZE_MINIMUM_VERSION": "1.4.0",
    "utils.ParameterFormat.Float.value": c_float,
    "utils.ParameterFormat.Float.size": 4,
}

TASKS = {
    "causal-lm",
    "default",
    "image-classification",
    "image-segmentation",
    "masked-im",
    "masked-lm",
    "multiple-choice",
    "object-detection",
    "question-answering",
    "semantic-segmentation",
    "seq2seq-lm",
    "sequence-classification",
    "speech2seq-lm",
    "token-classification",
    "vision2seq-lm",
}


def resolve(dotted):
    """The object of that dotted name under `parity.onnx`."""
    module, *names = dotted.split(".")
    value = importlib.import_module(f"parity.onnx.{module}")
    for name in names:
        value = getattr(value, name)
    return value


def signature_of(function):
    """Names, order, kinds and defaults of the parameters, without annotations."""
    signature = inspect.signature(function)
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=signature.empty))


@pytest.mark.parametrize("name", PACKAGE)
def test_the_package_has_every_public_name(name):
    """Everything importable from `transformers.onnx` can be imported from `parity.onnx`, and `dir` lists it."""
    assert getattr(parity.onnx, name) is not None
    assert name in dir(parity.onnx)
    assert name in parity.onnx.__all__


def test_the_package_has_no_other_name():
    """A missing name is an AttributeError, as in any module."""
    with pytest.raises(AttributeError, match=r"No parity\.onnx attribute export_all"):
        _ = parity.onnx.export_all


def test_the_modules_are_attributes_of_the_package():
    """`import parity.onnx` alone gives access to `parity.onnx.config` and others, which are imported on first use."""
    modules = ("config", "convert", "features", "utils")
    code = f"import parity.onnx; print([getattr(parity.onnx, name).__name__ for name in {modules}])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == (f"{[f'parity.onnx.{name}' for name in modules]}\n", "")


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_function_has_the_old_parameters_and_defaults(name):
    """Names, order and defaults of the parameters are those of 4.46.3, without additions."""
    assert signature_of(resolve(name)) == SIGNATURES[name]


@pytest.mark.parametrize(("owner", "name"), [(owner, name) for owner, names in PROPERTIES.items() for name in names])
def test_a_property_is_still_a_property(owner, name):
    """Attributes that scripts read or override as properties are properties."""
    assert isinstance(inspect.getattr_static(resolve(owner), name), property)


@pytest.mark.parametrize("name", CONSTANTS)
def test_a_constant_has_the_old_value(name):
    """Constants keep their value and, versions aside, their type."""
    value, expected = resolve(name), CONSTANTS[name]
    assert (str(value) if isinstance(expected, str) else value) == expected


def test_inputs_must_be_declared():
    """Only `inputs` of `OnnxConfig` is abstract."""
    assert OnnxConfig.__abstractmethods__ == {"inputs"}


def test_the_tasks_are_the_old_ones():
    """A configuration takes the fifteen tasks of 4.46.3 and refuses any other with their list."""
    assert set(OnnxConfig._tasks_to_common_outputs) == TASKS
    with pytest.raises(ValueError, match=r"poetry is not a supported task.*masked-lm"):
        DistilBertOnnxConfig(None, task="poetry")


@pytest.mark.parametrize(
    ("dimension", "fixed", "special", "size"), [(-1, 8, 2, 6), (0, 8, 0, 8), (5, 8, 0, 5), (5, 8, 2, 3)]
)
def test_an_effective_dimension_is_the_fixed_one_when_dynamic_less_special_tokens(dimension, fixed, special, size):
    """A dimension of at most 0 means the fixed one; special tokens are subtracted from either."""
    assert utils.compute_effective_axis_dimension(dimension, fixed, special) == size


def test_external_data_begins_at_two_gibibytes():
    """2²⁹ float32 parameters need external data, one less does not."""
    assert OnnxConfig.use_external_data_format(2**29)
    assert not OnnxConfig.use_external_data_format(2**29 - 1)
    assert utils.compute_serialized_parameters_size(7, utils.ParameterFormat.Float) == 28


def test_an_old_onnxruntime_is_refused():
    """The installed ONNX Runtime passes, and a version that does not exist yet does not."""
    convert.check_onnxruntime_requirements(convert.parse(version_of("onnxruntime")))
    with pytest.raises(ImportError, match=r"should be at least 999\.0"):
        convert.check_onnxruntime_requirements(convert.parse("999.0"))


@pytest.mark.parametrize("architecture", registry.architectures(), ids=lambda a: a.name)
def test_every_declared_architecture_is_found_under_both_spellings(architecture):
    """FeaturesManager knows each model type with `-` and with `_`, with its features in their order."""
    for spelling in (architecture.model_type, architecture.name, architecture.name.upper()):
        assert tuple(FeaturesManager.get_supported_features_for_model_type(spelling)) == architecture.features


def test_a_model_type_of_two_words_is_found_under_both_spellings(monkeypatch):
    """`big-bird`, as 4.46.3 lists it, and `big_bird`, as transformers names it, are one entry."""
    types = _ModelTypes()
    types["big_bird"] = {"default": DistilBertOnnxConfig.from_model_config}
    monkeypatch.setattr(FeaturesManager, "_SUPPORTED_MODEL_TYPE", types)
    assert FeaturesManager.get_supported_features_for_model_type("big-bird") is types["big_bird"]
    assert FeaturesManager.get_config("big-bird", "default") is FeaturesManager.get_config("big_bird", "default")


def test_an_unknown_model_type_is_a_key_error_that_lists_the_known_ones():
    """The message names the type, the model, and what is supported."""
    with pytest.raises(KeyError, match=r"abacus \(my/model\) is not supported yet.*distilbert.*gpt2"):
        FeaturesManager.get_supported_features_for_model_type("abacus", model_name="my/model")


def test_available_features_are_those_of_all_architectures():
    """AVAILABLE_FEATURES is the sorted union."""
    union = {feature for architecture in registry.architectures() for feature in architecture.features}
    assert sorted(union) == FeaturesManager.AVAILABLE_FEATURES


def test_a_feature_leads_to_its_task_and_auto_class():
    """`causal-lm-with-past` has the task causal-lm and AutoModelForCausalLM; an unknown feature is a KeyError."""
    assert FeaturesManager.feature_to_task("causal-lm-with-past") == "causal-lm"
    assert FeaturesManager.get_model_class_for_feature("causal-lm-with-past").__name__ == "AutoModelForCausalLM"
    with pytest.raises(KeyError, match="poetry"):
        FeaturesManager.get_model_class_for_feature("poetry")
    with pytest.raises(ValueError, match="framework: got jax"):
        FeaturesManager.get_model_class_for_feature("default", "jax")


@pytest.mark.parametrize(
    "onnx_config",
    [
        DistilBertOnnxConfig,
        "parity.architectures.gpt2.GPT2OnnxConfig",
        "models.gpt2.GPT2OnnxConfig",
        # In the old package one module had two models.
        "models.data2vec.Data2VecTextOnnxConfig",
        "models.data2vec.Data2VecVisionOnnxConfig",
    ],
)
def test_a_features_mapping_takes_a_class_or_its_dotted_name(onnx_config):
    """The class, its path in parity, and its path in the old package all make a mapping."""
    mapping = features.supported_features_mapping("default", "masked-lm", onnx_config_cls=onnx_config)
    assert list(mapping) == ["default", "masked-lm"]
    assert mapping["masked-lm"](None).task == "masked-lm"


def test_a_features_mapping_makes_configurations_with_past():
    """A feature that ends in `-with-past` makes a configuration with `use_past`, for the task before the suffix."""
    mapping = features.supported_features_mapping(
        "causal-lm", "causal-lm-with-past", onnx_config_cls="models.gpt2.GPT2OnnxConfig"
    )
    made = [constructor(None) for constructor in mapping.values()]
    assert [(config.task, config.use_past) for config in made] == [("causal-lm", False), ("causal-lm", True)]
    with pytest.raises(ValueError, match="onnx_config_cls: is missing"):
        features.supported_features_mapping("default")
    with pytest.raises(ValueError, match=r"models\.gpt2\.PoetryOnnxConfig is not the class of a declared architecture"):
        features.supported_features_mapping("default", onnx_config_cls="models.gpt2.PoetryOnnxConfig")


@pytest.mark.parametrize(
    "code",
    [
        "import parity.onnx",
        "from parity.onnx import *; from parity.onnx import FeaturesManager, OnnxConfig, export",
        "from parity import registry; registry.architectures()",
    ],
)
def test_looking_costs_no_torch(code):
    """Importing configurations, features and declarations imports neither torch nor transformers."""
    check = f"import sys; {code}; print([name for name in ('torch', 'transformers') if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("[]\n", "")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny DistilBERT classifier on disk."""
    directory = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(directory, "distilbert", "sequence-classification")
    return directory


def test_a_checkpoint_is_loaded_for_a_feature(checkpoint):
    """`get_model_from_feature` loads its class, `check_supported_model_or_raise` finds its configuration."""
    model = FeaturesManager.get_model_from_feature("sequence-classification", str(checkpoint))
    assert (type(model).__name__, model.training) == ("DistilBertForSequenceClassification", False)
    model_type, constructor = FeaturesManager.check_supported_model_or_raise(model, "sequence-classification")
    assert (model_type, list(constructor(model.config).outputs)) == ("distilbert", ["logits"])
    with pytest.raises(ValueError, match="distilbert doesn't support feature causal-lm; supported: default"):
        FeaturesManager.check_supported_model_or_raise(model, "causal-lm")


def test_the_framework_is_that_of_the_weights(checkpoint, tmp_path):
    """The given framework wins, else the weights decide; a directory without weights is a FileNotFoundError."""
    assert FeaturesManager.determine_framework(str(tmp_path), "tf") == "tf"
    assert FeaturesManager.determine_framework(str(checkpoint)) == "pt"
    (tmp_path / "tf_model.h5").touch()
    assert FeaturesManager.determine_framework(str(tmp_path)) == "tf"
    (tmp_path / "tf_model.h5").unlink()
    with pytest.raises(FileNotFoundError, match="has no weights"):
        FeaturesManager.determine_framework(str(tmp_path))


def test_the_preprocessor_is_the_one_that_the_checkpoint_has(checkpoint, tmp_path):
    """A tokenizer or an image processor is found; neither gives None, both a ValueError."""
    assert utils.get_preprocessor(str(checkpoint)).unk_token == "[UNK]"
    shutil.copy(checkpoint / "config.json", tmp_path)
    assert utils.get_preprocessor(str(tmp_path)) is None
    preprocessor("image32").save_pretrained(tmp_path)
    assert utils.get_preprocessor(str(tmp_path)).model_input_names == ["pixel_values"]
    preprocessor("distilbert").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no processor that joins them"):
        utils.get_preprocessor(str(tmp_path))


def test_inputs_are_matched_in_the_order_of_forward():
    """Returns the verdict, and the inputs of the model in the order of its parameters."""
    model = tiny_model("distilbert")
    match = convert.ensure_model_and_config_inputs_match
    assert match(model, ["attention_mask", "input_ids"]) == (True, ["input_ids", "attention_mask"])
    assert match(model, ["token_type_ids", "input_ids"]) == (False, ["input_ids"])


def test_the_deprecated_tokenizer_argument_still_works():
    """It replaces `preprocessor`, with a FutureWarning; passing a tokenizer as both is a ValueError."""
    tokenizer, config = preprocessor("distilbert"), DistilBertOnnxConfig(tiny_config("distilbert"))
    with pytest.warns(FutureWarning, match="tokenizer is deprecated"):
        inputs = config.generate_dummy_inputs(None, tokenizer=tokenizer, framework="pt")
    assert inputs["input_ids"].shape == (2, 8)
    with pytest.raises(ValueError, match="both a tokenizer and a preprocessor"):
        config.generate_dummy_inputs(tokenizer, tokenizer=tokenizer)
    model = tiny_model("distilbert")
    with pytest.raises(ValueError, match="both a tokenizer and a preprocessor"):
        convert.export(tokenizer, model, config, 11, "model.onnx", tokenizer=tokenizer)
    with pytest.raises(ValueError, match="both a tokenizer and a preprocessor"):
        convert.validate_model_outputs(config, tokenizer, model, "model.onnx", [], 1e-5, tokenizer=tokenizer)
