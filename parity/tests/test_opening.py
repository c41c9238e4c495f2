"""Opening a checkpoint before export: its feature, its head, its directory, its layers."""

import functools
import json
import shutil
from types import SimpleNamespace

import pytest

from parity import check, features, loading, onnx, tasks, torchscript, unused
from parity.errors import UsageError
from parity.fixtures.checkpoints import save_checkpoint, tiny_config
from parity.fixtures.controls import commands
from parity.onnx.__main__ import main
from parity.registry import architectures
from parity.torchscript.__main__ import main as torchscript_main

run = functools.partial(commands.run, command=main)

WARNING = (
    "warning: feature default leaves out the head of {}, the class that the checkpoint was saved with; --feature {}"
    " keeps it\n".format
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """(architecture, feature) → the directory of a tiny checkpoint, which tests must not change."""

    @functools.cache
    def save(model_type, feature="default"):
        directory = tmp_path_factory.mktemp(model_type)
        save_checkpoint(directory, model_type, feature)
        return directory

    return save


@pytest.fixture
def copy(checkpoint, tmp_path):
    """A function: architecture, feature, items of config.json → a checkpoint that tests may change."""

    def make(model_type, feature="default", **items):
        directory = shutil.copytree(checkpoint(model_type, feature), tmp_path / "checkpoint")
        path = directory / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **items}))
        return directory

    return make


def opened(directory, *, allow=False):
    """A checkpoint, and the list of its warnings."""
    from parity.checkpoint import Checkpoint

    lines = []
    return Checkpoint(str(directory), policy=unused.Policy(allow, lines.append)), lines


# The head.


def test_the_head_is_not_lost_unseen(checkpoint, tmp_path):
    """`default` of a checkpoint with a head gives one line on standard error, for export and check, quiet or not."""
    directory = checkpoint("bert", "masked-lm")
    expected = WARNING("BertForMaskedLM", "masked-lm")
    assert run("-m", directory, "--quiet", tmp_path) == (0, "", expected)
    assert run(directory, tmp_path / "model.onnx", "--quiet", command=check.main) == (0, "", expected)


@pytest.mark.parametrize(
    ("model_type", "saved", "feature", "keeps"),
    [
        ("gpt2", "causal-lm", "default", "causal-lm"),
        ("gpt2", "causal-lm", "default-with-past", "causal-lm-with-past"),
        ("gpt2", "sequence-classification", "default-with-past", "sequence-classification"),
        ("gpt2", "default", "default", None),
        ("gpt2", "causal-lm", "causal-lm-with-past", None),
        ("clip", "default", "default", None),
    ],
)
def test_the_feature_that_keeps_the_head_is_named(checkpoint, model_type, saved, feature, keeps):
    """With past key values if the feature has some; no line without a head, or if it is kept."""
    each, lines = opened(checkpoint(model_type, saved))
    each.warn_of_lost_head(feature)
    assert [line.rpartition("--feature ")[2] for line in lines] == ([f"{keeps} keeps it"] if keeps else [])


def test_a_head_of_no_feature_is_not_lost_unseen(copy):
    """A class with two heads, which no feature loads: the omitted weights are reported, with the features."""
    from transformers import AutoConfig, BertForPreTraining

    directory = copy("bert")
    BertForPreTraining(AutoConfig.from_pretrained(directory)).save_pretrained(directory)
    each, lines = opened(directory)
    each.load("default", each.inputs(each.onnx_config("default")))
    (line,) = lines
    assert line.startswith("BertModel does not use these weights of the checkpoint: cls.predictions, cls.predictions.")
    assert "cls.seq_relationship; features with a head: masked-lm, causal-lm, " in line


def test_auto_takes_what_the_checkpoint_was_saved_for(checkpoint, tmp_path):
    """`--feature auto` reports its choice and the reason; the head is in the file."""
    status, log, err = run("-m", checkpoint("bert", "masked-lm"), "--feature", "auto", tmp_path)
    assert (status, err) == (0, "")
    assert log.splitlines()[0] == "Feature masked-lm, because the checkpoint was saved as BertForMaskedLM"
    status, log, err = run(checkpoint("bert", "masked-lm"), tmp_path / "model.onnx", "--task=auto", command=check.main)
    assert (status, err) == (0, "")
    assert "feature masked-lm" in log.splitlines()[1]


@pytest.mark.parametrize(
    ("model_type", "saved", "line"),
    [
        ("gpt2", "causal-lm", "saved as GPT2LMHeadModel; causal-lm-with-past fits too"),
        ("xlm", "masked-lm", "saved as XLMWithLMHeadModel; causal-lm fits too"),
        ("vit", "image-classification", "saved as ViTForImageClassification"),
        ("t5", "default", "saved as T5Model; default-with-past fits too"),
    ],
)
def test_auto_of_several_kinds(checkpoint, model_type, saved, line):
    """If several features load the class, the first is taken and the others are named."""
    each, _ = opened(checkpoint(model_type, saved))
    assert each.feature("auto") == saved
    assert each.automatic_choice == f"Feature {saved}, because the checkpoint was {line}"


@pytest.mark.parametrize(
    ("architectures", "text"),
    [(["BertForPreTraining"], "was saved as BertForPreTraining"), (None, "does not say as what it was saved")],
)
def test_auto_does_not_guess(copy, tmp_path, architectures, text):
    """A class that no feature loads, or no class: exit status 2 with the available features."""
    status, _, err = run("-m", copy("bert", architectures=architectures), "--feature=auto", tmp_path / "out")
    assert status == 2
    assert text in err
    assert "name one of default, masked-lm, causal-lm" in err


def test_each_architecture_has_one_class_a_task():
    """`auto` finds the feature of each saved head, in every architecture; two have one class for two tasks."""
    double = {}
    available = [(each, [name for name in each.features if not each.gap_of(name)]) for each in architectures()]
    for declared, names in available:
        model_type = declared.model_type
        config = tiny_config(model_type) if names else None
        for feature in names:
            heads = features.heads(config, feature)
            # transformers creates the first one; DeiT has a second.
            config.architectures = [heads[0].__name__]
            found = features.features_saved(config)
            assert feature in found, (model_type, feature)
            if len(set(map(tasks.task_of, found))) > 1:
                double[model_type] = found
    assert double == {"flaubert": ["masked-lm", "causal-lm"], "xlm": ["masked-lm", "causal-lm"]}


def test_names_of_others_are_taken():
    """Each name of optimum and of pipelines gives a feature, with a past too; unknown names stay."""
    every = features.FeaturesManager.AVAILABLE_FEATURES
    assert {name: tasks.feature_by_name(name, every) for name in tasks.ALIASES} == tasks.ALIASES
    assert set(tasks.ALIASES.values()) <= set(every) <= {tasks.feature_by_name(name, every) for name in every}
    assert not set(tasks.ALIASES) & set(every)
    names = ("text-generation-with-past", "feature-extraction-with-past", "automatic-speech-recognition-with-past")
    assert [tasks.feature_by_name(name, every) for name in names] == [
        "causal-lm-with-past",
        "default-with-past",
        "speech2seq-lm-with-past",
    ]
    assert tasks.feature_by_name("fill-mask-with-past", every) == "fill-mask-with-past"
    assert tasks.feature_by_name("text-generation", ["default", "text-generation"]) == "text-generation"


def test_aliases_where_the_feature_exists(checkpoint, tmp_path):
    """If the architecture lacks the feature, the message has the name that the user gave."""
    bert, output = checkpoint("bert", "sequence-classification"), tmp_path / "model.pt"
    status, log, err = run("-m", bert, "--task=text-classification", output, command=torchscript_main)
    assert (status, err) == (0, "")
    assert "feature sequence-classification" in log.splitlines()[0]
    assert torchscript.load(output).feature == "sequence-classification"
    status, _, err = run("-m", bert, "--feature", "automatic-speech-recognition", tmp_path)
    assert status == 2
    assert "bert doesn't support feature automatic-speech-recognition; supported: default" in err


# Unused weights.


def cut_layers(directory):
    """Set one layer fewer in config.json than the checkpoint has weights for."""
    path = directory / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "num_hidden_layers": config["num_hidden_layers"] - 1}))
    return directory


@pytest.mark.parametrize("saved", ["default", "sequence-classification"])
def test_whole_layers_are_not_left_out(copy, tmp_path, saved):
    """A configuration with fewer layers than the checkpoint is refused, with or without head, unless requested.

    The control is the checkpoint as it was saved.
    """
    directory = cut_layers(copy("bert", saved))
    status, out, err = run("-m", directory, "--feature", saved, tmp_path / "out")
    assert (status, out) == (1, "")
    assert "holds weights of encoder.layer.1, which Bert" in err
    assert "--allow-unused" in err
    assert not (tmp_path / "out").exists()
    if saved == "default":
        status, out, err = run("-m", directory, "--allow-unused", tmp_path / "out")
        assert (status, out.splitlines()[-1]) == (0, f"All good, model saved at: {tmp_path.as_posix()}/out/model.onnx")
        assert err.startswith("warning: BertModel does not use these weights of the checkpoint: encoder.layer.1.")


def test_single_weights_are_reported_once(checkpoint):
    """A pooler that masked-lm lacks gives one line, however often the model is loaded; the head is not repeated."""
    each, lines = opened(checkpoint("bert"))
    inputs = each.inputs(each.onnx_config("masked-lm"))
    loaded = loading.load_model(each.source, features.model_class("bert", "default"))
    for _ in range(2):
        each._account_unused(loaded.model, ["bert.pooler.dense.weight", "bert.pooler.dense.bias"], "default")
    assert lines == ["BertModel does not use these weights of the checkpoint: bert.pooler.dense"]
    head, lines = opened(checkpoint("bert", "masked-lm"))
    head.load("default", inputs)
    head.warn_of_lost_head("default")
    assert len(lines) == 1


def test_the_python_api_reports_them_too(checkpoint, caplog):
    """`get_model_from_feature` logs unused weights; nothing is logged if all are used."""
    features.FeaturesManager.get_model_from_feature("default", str(checkpoint("bert", "masked-lm")))
    (line,) = [each.getMessage() for each in caplog.records if each.name.startswith("parity")]
    assert line.startswith("BertModel does not use these weights of ")
    assert "cls.predictions" in line
    caplog.clear()
    features.FeaturesManager.get_model_from_feature("masked-lm", str(checkpoint("bert", "masked-lm")))
    assert not [each for each in caplog.records if each.name.startswith("parity")]


def test_no_tidy_checkpoint_has_unused_weights(checkpoint):
    """A checkpoint loaded as the class that saved it is used completely, whatever the names of its weights."""
    for model_type, feature in (
        ("bert", "masked-lm"),
        ("bart", "seq2seq-lm"),
        ("gpt2", "causal-lm"),
        ("vit", "default"),
    ):
        each, lines = opened(checkpoint(model_type, feature))
        each.load(feature, each.inputs(each.onnx_config(feature)))
        assert lines == []


def test_layers_within_layers():
    """The outermost missing layer is named; a head's own layers do not count as the base model's."""
    own = ["swin.encoder.layers.0.blocks.0.norm.weight", "swin.encoder.layers.1.blocks.0.norm.weight"]
    names = [
        "swin.encoder.layers.1.blocks.1.norm.weight",
        "swin.encoder.layers.2.blocks.0.norm.weight",
        "head.0.weight",
    ]
    assert unused.whole_layers(names, own, "swin", bare=False) == ["encoder.layers.1.blocks.1", "encoder.layers.2"]
    encoder = ["model.encoder.layers.0.fc1.weight", "model.decoder.layers.0.fc1.weight", "model.shared.weight"]
    assert unused.whole_layers(encoder, encoder[1:], "model", bare=False) == ["encoder.layers.0"]
    assert unused.whole_layers([encoder[0][6:]], encoder[1:], "model", bare=True) == ["encoder.layers.0"]
    part = ["swin.encoder.layers.0.blocks.0.other.weight"]
    assert unused.whole_layers(part, own, "swin", bare=False) == []
    assert unused.modules_of(["a.position_ids", "cls.bias", "a.b.weight", "a.b.bias", "logit_scale"]) == [
        "a.b",
        "cls",
        "logit_scale",
    ]
    assert unused.listing([*"abcdefg"]) == "a, b, c, d, e and 2 more"


# The directory of the checkpoint.


@pytest.mark.parametrize("case", ["nothing above", "configuration above"])
def test_directories_with_checkpoints_are_listed(checkpoint, tmp_path, case):
    """If subdirectories have weights, the message lists them, and --subfolder selects one."""
    for name in ("checkpoint-500", "checkpoint-1000", "logs/last"):
        shutil.copytree(checkpoint("bert"), tmp_path / "run" / name)
    (tmp_path / "run" / "checkpoint-500" / "model.safetensors").unlink()
    if case == "configuration above":
        shutil.copy(checkpoint("bert") / "config.json", tmp_path / "run")
    status, out, err = run("-m", tmp_path / "run", tmp_path / "out")
    assert (status, out) == (1, "")
    assert "checkpoint-1000, logs/last hold checkpoints: give one of them, or --subfolder" in err
    status, _, err = run("-m", tmp_path / "run", "--subfolder=checkpoint-2", tmp_path / "out")
    assert status == 2
    assert "--subfolder checkpoint-2: " in err
    assert "checkpoint-1000, logs/last hold" in err
    source = loading.resolve(str(tmp_path / "run"), subfolder="checkpoint-1000")
    assert source == str(tmp_path / "run" / "checkpoint-1000")


def test_every_command_takes_the_same_options_of_a_checkpoint():
    """Options for its location, its tokenizer and unused weights, and other names for features."""
    from parity.neuron import __main__ as neuron
    from parity.onnx import __main__ as onnx_command
    from parity.torchscript import __main__ as torchscript_command

    options = {"--task", "--cache_dir", "--revision", "--subfolder", "--tokenizer", "--allow-unused"}
    for command in (check, onnx_command, torchscript_command, neuron):
        parser = command.parser()
        assert options <= set(parser._option_string_actions), parser.prog


def test_a_directory_has_no_revisions(checkpoint, tmp_path):
    """--revision with a local checkpoint gives exit status 2."""
    status, _, err = run("-m", checkpoint("bert"), "--revision=main", tmp_path)
    assert status == 2
    assert "--revision: " in err
    assert "has no revisions" in err


@pytest.fixture
def hub(checkpoint, tmp_path, monkeypatch):
    """A cache of the Hub with two revisions of somebody/model, in offline mode: a bert, and a gpt2 in a subfolder."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "cache" / "models--somebody--model"
    (repository / "refs").mkdir(parents=True)
    for ref, digit, model_type, place in (("main", "0", "bert", ""), ("v2", "1", "gpt2", "text")):
        (repository / "refs" / ref).write_text(digit * 40)
        shutil.copytree(checkpoint(model_type), repository / "snapshots" / (digit * 40) / place)
    loading._require_hub.cache_clear()
    yield str(tmp_path / "cache")
    loading._require_hub.cache_clear()


def test_revision_and_subfolder_of_the_hub(hub, tmp_path):
    """They lead to the files of that revision; a missing one is refused with one message."""
    args = SimpleNamespace(
        model="somebody/model", cache_dir=hub, revision="v2", subfolder="text", tokenizer=None, allow_unused=False
    )
    from parity import opening
    from parity.console import Console

    each = opening.open_checkpoint(args, opening.locate(args), Console())
    assert (each.model_type, str(each)) == ("gpt2", "somebody/model/text@v2")
    assert each.fingerprint == loading.fingerprint(each.source)
    assert loading.resolve("somebody/model", hub) == "somebody/model"
    assert loading.load_config(loading.resolve("somebody/model", hub, revision="main")).model_type == "bert"
    for options in ({"revision": "v3"}, {"revision": "v2", "subfolder": "image"}, {"subfolder": "text"}):
        with pytest.raises(
            UsageError, match=r"somebody/model: is not a directory on this machine, and the Hub cannot be reached"
        ):
            loading.resolve("somebody/model", hub, **options)


def test_half_a_configuration_is_no_api(checkpoint):
    """Only commands have the aliases: the manager of features has just the names of transformers.onnx."""
    with pytest.raises(UsageError, match="doesn't support feature fill-mask"):
        features.constructor("bert", "fill-mask")
    assert "auto" not in onnx.FeaturesManager.AVAILABLE_FEATURES
