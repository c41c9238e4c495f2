"""Preparing inputs: the preprocessor of a model, missing parts, missing packages, drawn ids."""

import importlib.util
import json

import numpy as np
import pytest

from parity.check import main as check
from parity.environment import at_least
from parity.errors import CheckpointError, UsageError
from parity.features import constructor
from parity.fixtures import published
from parity.fixtures.checkpoints import save_checkpoint, tiny_config, tiny_model
from parity.fixtures.controls import commands
from parity.fixtures.preprocessors import preprocessor
from parity.judge.contract import read
from parity.onnx.__main__ import main as onnx
from parity.preprocessors import DrawnTokens, JoinedPreprocessor, open_preprocessor
from parity.registry import architectures


def export(checkpoint, output, *options):
    return commands.run("-m", checkpoint, *options, output, command=onnx)


@pytest.fixture(scope="module")
def captioner(tmp_path_factory):
    """A tokenizer and an image processor without a common class, like nlpconnect/vit-gpt2-image-captioning."""
    directory = tmp_path_factory.mktemp("captioner")
    save_checkpoint(directory, "vision-encoder-decoder", "vision2seq-lm")
    return directory


@pytest.mark.parametrize("kind", ["auto", "processor"])
def test_tokenizer_and_image_processor_are_joined_if_the_model_takes_both(captioner, kind):
    """Without a processor class too, and also if a processor is requested."""
    joined = open_preprocessor(str(captioner), tiny_config("vision-encoder-decoder"), kind, cache_dir=None)
    assert (joined.tokenizer.unk_token, joined.image_processor.size["height"]) == ("[UNK]", 32)


def test_a_processor_class_that_cannot_read_the_files_joins_nothing(tmp_path, monkeypatch):
    """Whisper's before transformers 4.54 opens the vocabulary of a slow tokenizer: parity joins the two itself."""
    import transformers

    def refuse(*args, **options):
        raise TypeError("expected str, bytes or os.PathLike object, not NoneType")

    save_checkpoint(tmp_path, "whisper", "speech2seq-lm")
    monkeypatch.setattr(transformers.AutoProcessor, "from_pretrained", refuse)
    joined = open_preprocessor(str(tmp_path), tiny_config("whisper"), cache_dir=None)
    assert isinstance(joined, JoinedPreprocessor)
    assert joined.feature_extractor.feature_size == 8


def test_a_captioner_is_exported(captioner, tmp_path):
    """The command needs no option for it."""
    status, _, err = export(captioner, tmp_path, "--feature", "vision2seq-lm", "--quiet")
    assert (status, err) == (0, "")
    assert {"preprocessor_config.json", "tokenizer.json"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("kind", ["tokenizer", "image_processor", "feature_extractor"])
def test_one_half_of_what_a_model_needs_is_refused(captioner, kind):
    """The message says why, and to omit the option."""
    with pytest.raises(UsageError, match=f"--preprocessor {kind}: .* takes a text and an image.*leave the option out"):
        open_preprocessor(str(captioner), tiny_config("vision-encoder-decoder"), kind, cache_dir=None)


def test_a_half_that_the_checkpoint_lacks_is_named(tmp_path):
    """A captioner needs a tokenizer besides the images; the message suggests --tokenizer."""
    preprocessor("image32").save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"has no tokenizer, which vision-encoder-decoder needs.*--tokenizer"):
        open_preprocessor(str(tmp_path), tiny_config("vision-encoder-decoder"), cache_dir=None)


@pytest.mark.parametrize(("name", "kind"), [("vit", "image_processor"), ("bert", "tokenizer")])
def test_of_two_that_nothing_joins_the_model_takes_its_own(tmp_path, name, kind):
    """An image processor with a text model, or a tokenizer with an image model, belongs to another model."""
    for part in ("image32", "bert"):
        preprocessor(part).save_pretrained(tmp_path)
    own = open_preprocessor(str(tmp_path), tiny_config(name), cache_dir=None)
    assert hasattr(own, "all_special_ids") is (kind == "tokenizer")


def test_a_text_model_without_tokenizer_is_exported_with_drawn_ids(tmp_path):
    """The log says so, the directory has no tokenizer, and the file is judged like any other."""
    tiny_model("bart", "sequence-classification").save_pretrained(tmp_path / "bart")
    status, log, err = export(tmp_path / "bart", tmp_path / "onnx", "--feature", "sequence-classification")
    assert (status, err) == (0, "")
    assert log.splitlines()[0].startswith("No tokenizer: exported and validated with drawn token ids")
    assert {path.name for path in (tmp_path / "onnx").iterdir()} <= {
        "model.onnx",
        "config.json",
        "generation_config.json",
    }


def test_drawn_ids_are_in_the_table_and_no_padding():
    """For long texts and few ids too."""
    config = tiny_config("bert")
    config.vocab_size = 5
    tokens = DrawnTokens(config)(["0" * 12] * 2, return_tensors="np")
    assert set(tokens) == {"input_ids", "token_type_ids", "attention_mask"}
    assert tokens["input_ids"].shape == (2, 12)
    assert set(np.unique(tokens["input_ids"])) == {1, 2, 3, 4}


@pytest.mark.parametrize(("name", "feature"), [("perceiver", "image-classification"), ("imagegpt", "default")])
def test_no_ids_are_drawn_for_images(tmp_path, name, feature):
    """A text model by its kind may take images: then its image processor is missing."""
    tiny_model(name, feature).save_pretrained(tmp_path / "model")
    status, _, err = export(tmp_path / "model", tmp_path / "onnx", "--feature", feature)
    assert status == 1
    assert f"has no image processor, which {feature} needs" in err


def test_a_tokenizer_is_taken_from_elsewhere(tmp_path):
    """`--tokenizer DIR`: it is saved next to the file, with its class name, and `check` uses it too."""
    from transformers import AutoTokenizer

    tiny_model("gpt2").save_pretrained(tmp_path / "gpt2")
    (tmp_path / "words").mkdir()
    published.write_tokenizer(tmp_path / "words", "wordpiece")
    tiny_config("bert").save_pretrained(tmp_path / "words")
    options = ("--tokenizer", tmp_path / "words", "--quiet")
    assert export(tmp_path / "gpt2", tmp_path / "onnx", *options)[::2] == (0, "")
    assert (tmp_path / "onnx" / "vocab.txt").read_bytes() == (tmp_path / "words" / "vocab.txt").read_bytes()
    loaded = AutoTokenizer.from_pretrained(tmp_path / "onnx")
    assert loaded("w7 w8")["input_ids"] == AutoTokenizer.from_pretrained(tmp_path / "words")("w7 w8")["input_ids"]
    assert set(loaded("w7")) == {"input_ids", "attention_mask"}
    status = commands.run(tmp_path / "gpt2", tmp_path / "onnx" / "model.onnx", *options, command=check)
    assert status[::2] == (0, "")


@pytest.mark.parametrize(
    ("tokenizer", "name", "says"),
    [
        ("./nowhere", "bert", "no such directory"),
        (__file__, "bert", "is a file, should be the directory"),
        (".", "vit", "takes no text"),
    ],
)
def test_a_tokenizer_that_cannot_be_taken_is_refused(tmp_path, tokenizer, name, says):
    """Neither a file nor a missing path is a tokenizer, and an image model needs none."""
    if tokenizer == ".":
        preprocessor("bert").save_pretrained(tmp_path)
        tokenizer = str(tmp_path)
    with pytest.raises(UsageError, match=f"--tokenizer .*{says}"):
        open_preprocessor("checkpoint", tiny_config(name), tokenizer=tokenizer, cache_dir=None)


@pytest.fixture
def rebuilt(tmp_path):
    """An ALBERT with a vocab.txt: transformers 5 loads its tokenizer with only five special tokens."""
    tiny_model("albert").save_pretrained(tmp_path)
    published.write_tokenizer(tmp_path, "wordpiece")
    return tmp_path


@pytest.mark.skipif(not at_least("transformers", "5"), reason="transformers 4 does not rebuild tokenizers")
def test_a_tokenizer_that_is_rebuilt_with_fewer_tokens_is_refused(rebuilt, tmp_path):
    """Every word would be unknown; with the class from the message the checkpoint is exported."""
    status, _, err = export(rebuilt, tmp_path / "onnx")
    assert status == 1
    assert "as AlbertTokenizer of the installed transformers, knows" in err
    assert "of the 96 tokens of vocab.txt" in err
    (rebuilt / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    assert export(rebuilt, tmp_path / "onnx", "--quiet")[::2] == (0, "")


def test_words_that_are_no_ids_of_the_model_may_be_missing(tmp_path):
    """A tokenizer that knows as many words as the model has ids is complete, even if a file lists more."""
    preprocessor("bert").save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(f"w{index}" for index in range(5, 200)))
    config = tiny_config("bert")
    with pytest.raises(CheckpointError, match=r"knows 91 of the 195 tokens of vocab\.txt"):
        open_preprocessor(str(tmp_path), config, cache_dir=None)
    config.vocab_size = 91
    assert len(open_preprocessor(str(tmp_path), config, cache_dir=None)) == 96


@pytest.mark.skipif(importlib.util.find_spec("sentencepiece") is not None, reason="sentencepiece is installed")
@pytest.mark.parametrize(
    ("name", "file"), [("t5", "spiece.model"), ("marian", "source.spm"), ("llama", "tokenizer.model")]
)
def test_sentencepiece_is_named_if_it_is_missing(tmp_path, name, file):
    """The message names it, not tiktoken or a list of configuration classes as transformers does."""
    (tmp_path / file).write_bytes(b"pieces")
    with pytest.raises(CheckpointError, match=rf"{file}\) needs the package sentencepiece.*parity\[sentencepiece\]"):
        open_preprocessor(str(tmp_path), tiny_config(name), cache_dir=None)


@pytest.mark.parametrize(
    ("message", "package"),
    [
        ("DetrModel requires the timm library but it was not found in your environment.", "timm"),
        ("TimmBackbone requires the timm library", "timm"),
        ("`nosuchpackage` is required to read a file. Install it with `pip install nosuchpackage`.", "nosuchpackage"),
        ("No module named 'nosuchpackage.part'", "nosuchpackage"),
        ("A tokenizer is missing: pip install nosuchpackage", "nosuchpackage"),
        ("You need to install nosuchpackage to use RoFormerTokenizer.", "nosuchpackage"),
    ],
)
def test_a_missing_package_is_named(message, package):
    """Whatever other text transformers adds."""
    from parity.loading import missing_package

    assert missing_package(ImportError(message)) == package


@pytest.mark.parametrize(
    "message",
    [
        "a checkpoint of an architecture: pip install --upgrade transformers",
        "pip install git+https://github.com/huggingface/transformers.git",
        "No module named 'numpy'",
        "something else",
    ],
)
def test_what_is_installed_is_not_missing(message):
    """If an installed package is too old, the advice differs."""
    from parity.loading import missing_package

    assert missing_package(ValueError(message)) is None


@pytest.mark.skipif(importlib.util.find_spec("timm") is not None, reason="timm is installed")
def test_a_backbone_of_timm_is_named(tmp_path):
    """As in facebook/detr-resnet-50."""
    from parity.loading import load_model

    tiny_model("detr").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config.update(use_timm_backbone=True, backbone="resnet50", backbone_config=None)
    (tmp_path / "config.json").write_text(json.dumps(config))
    from transformers import AutoModel

    with pytest.raises(CheckpointError, match="needs the package timm, which is not installed: pip install timm"):
        load_model(str(tmp_path), AutoModel)


def test_the_file_of_a_processors_own_pixel_mask_is_exported(tmp_path):
    """hustvl/yolos-tiny's processor returns a pixel mask that the model does not take: the file takes only pixels."""
    tiny_model("yolos", "object-detection").save_pretrained(tmp_path / "yolos")
    processor = {
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "YolosFeatureExtractor",
        "format": "coco_detection",
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "size": 24,
        "max_size": 32,
    }
    (tmp_path / "yolos" / "preprocessor_config.json").write_text(json.dumps(processor))
    status, log, err = export(tmp_path / "yolos", tmp_path / "onnx", "--feature", "object-detection")
    assert (status, err) == (0, "")
    # transformers 4 returns none.
    assert ("Left out, because yolos does not take them: pixel_mask" in log) is at_least("transformers", "5")
    assert [value.name for value in read(tmp_path / "onnx" / "model.onnx").inputs] == ["pixel_values"]
    same = "preprocessor_config.json"
    assert (tmp_path / "onnx" / same).read_bytes() == (tmp_path / "yolos" / same).read_bytes()


def test_every_architecture_of_images_has_a_published_processor():
    """The fixture has the old files of all of them."""
    images = {each.name for each in architectures() if each.kind == "vision"}
    assert images | {"imagegpt"} == set(published.IMAGE_PROCESSORS)


@pytest.mark.parametrize("name", published.IMAGE_PROCESSORS)
def test_old_files_of_image_processors_are_read(tmp_path, name):
    """`feature_extractor_type` and sizes as numbers: the result has the declared inputs, or more."""
    from parity.samples import SampleSource

    published.write_image_processor(tmp_path, name)
    config = tiny_config(name)
    config.save_pretrained(tmp_path)
    own = open_preprocessor(str(tmp_path), config, cache_dir=None)
    source = SampleSource(constructor(name, "default")(config), own, config)
    assert source.layout.names == tuple(source.onnx_config.inputs)
    assert set(source.left_out) <= {"pixel_mask"}


@pytest.mark.parametrize("name", published.FEATURE_EXTRACTORS)
def test_old_files_of_two_kinds_of_inputs_are_joined(tmp_path, name):
    """Tokenizer and feature extractor whose files name no processor make all inputs that the model declares."""
    from parity.samples import SampleSource

    published.write_processor(tmp_path, name)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"preprocessor_config.json", "tokenizer_config.json"} <= names
    assert "processor_config.json" not in names
    config = tiny_config(name)
    config.save_pretrained(tmp_path)
    own = open_preprocessor(str(tmp_path), config, cache_dir=None)
    source = SampleSource(constructor(name, "default")(config), own, config)
    assert source.layout.names == tuple(source.onnx_config.inputs)


def test_images_of_detrs_own_size(tmp_path):
    """facebook/detr-resnet-50 scales the shorter side to 800 pixels, and the longer to at most 1,333."""
    import torch

    from parity.onnx import export as write
    from parity.sessions import OnnxSession

    model = tiny_model("detr", "object-detection")
    model.save_pretrained(tmp_path)
    values = {"feature_extractor_type": "DetrFeatureExtractor", "format": "coco_detection", "size": 800}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**values, "max_size": 1333}))
    own = open_preprocessor(str(tmp_path), model.config, cache_dir=None)
    config = constructor("detr", "object-detection")(model.config)
    write(own, model, config, 12, tmp_path / "model.onnx")
    pixels = torch.randn((1, 3, 800, 1333), generator=torch.Generator().manual_seed(0))
    inputs = {"pixel_values": pixels, "pixel_mask": torch.ones((1, 800, 1333), dtype=torch.long)}
    inputs["pixel_mask"][..., 1000:] = 0
    with torch.no_grad():
        reference = model(**inputs).pred_boxes.numpy()
    answer = OnnxSession(tmp_path / "model.onnx").run({name: tensor.numpy() for name, tensor in inputs.items()})
    assert np.ptp(reference) > 1e-2
    np.testing.assert_allclose(answer["pred_boxes"], reference, rtol=0, atol=1e-4)


@pytest.mark.parametrize("rate", [{"sampling_rate": 16_000}, {}], ids=["its own", "none"])
def test_a_sound_is_given_at_the_rate_of_its_extractor(rate):
    """Whisper's extractor warns without one, and refuses another; one that has none is not given any."""
    calls = []

    class Extractor:
        model_input_names = ("input_features",)

        def __call__(self, sound, return_tensors, **options):
            calls.append(options)
            return {"input_features": np.stack(sound)}

    extractor = Extractor()
    vars(extractor).update(rate)
    config = constructor("vit", "default")(tiny_config("vit"))
    assert list(config.generate_dummy_inputs(extractor, framework="np")) == ["input_features"]
    assert calls == [rate]
