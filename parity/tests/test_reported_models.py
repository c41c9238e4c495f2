"""Small models of reported kinds: each is exported correctly, or refused in one sentence."""

import json
import re
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from parity.declaration import Refusal
from parity.environment import at_least
from parity.errors import ExportError, NameMismatch, UsageError, ValueMismatch
from parity.fixtures.checkpoints import scramble, tiny_config, tiny_model
from parity.fixtures.controls import commands
from parity.fixtures.preprocessors import preprocessor
from parity.judge.contract import read
from parity.onnx import export, validate_model_outputs
from parity.onnx.__main__ import main
from parity.registry import architecture

DECODER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
SWIN = {"patch_size": 2, "embed_dim": 6, "depths": [1, 1], "num_heads": [2, 3], "window_size": 3}
MARIAN = {
    "vocab_size": 96,
    "share_encoder_decoder_embeddings": False,
    "tie_word_embeddings": False,
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 40,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}


def save(directory, model_class, config, tokenizer=None, **items):
    """Save the checkpoint of a model whose weights all have an effect; `items` are set in its config.json."""
    import torch
    import transformers

    settings = getattr(transformers, config[0])(**config[1])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = getattr(transformers, model_class)(settings)
    scramble(model)
    model.eval().save_pretrained(directory)
    if tokenizer is not None:
        preprocessor(tokenizer).save_pretrained(directory)
    if items:
        path = Path(directory) / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **items}))
    return model


def images(directory, height, width, mean=(0.5, 0.5, 0.5)):
    """A published image processor for images of that size."""
    values = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": height, "width": width},
        "image_mean": list(mean),
        "image_std": list(mean),
    }
    (Path(directory) / "preprocessor_config.json").write_text(json.dumps(values))


def command(directory, feature):
    """Exit status and standard error of the export, and its file's inputs with their shapes."""
    status, _, err = commands.run("-m", directory, "--feature", feature, "--quiet", directory / "onnx", command=main)
    file = directory / "onnx" / "model.onnx"
    return status, err, {value.name: value.axes for value in read(file).inputs} if file.exists() else {}


def require_export(directory, feature):
    status, err, inputs = command(directory, feature)
    assert (status, err) == (0, "")
    return inputs


def test_attention_that_insists_on_float32(tmp_path):
    """`reorder_and_upcast_attn` of the stanford-crfm GPT-2s raises in float64: the reference uses the normal order."""
    config = {**tiny_config("gpt2").to_diff_dict(), "reorder_and_upcast_attn": True}
    save(tmp_path, "GPT2LMHeadModel", ("GPT2Config", {**config, "scale_attn_by_inverse_layer_idx": True}), "gpt2")
    require_export(tmp_path, "causal-lm")


def test_the_float64_reference_of_upcast_attention_is_that_of_the_rest():
    """Both orders compute the same function: the difference is below float32 accuracy, and the flag is restored."""
    from parity.reference import UPCAST, answers
    from parity.samples import SampleSource

    model = tiny_model("gpt2", "causal-lm")
    onnx_config = constructor("gpt2", "causal-lm")(model.config)
    source = SampleSource(onnx_config, preprocessor("gpt2"), model.config)
    samples = [source.generate(seed=1)]
    (plain,) = answers(model, onnx_config, samples)
    layers = [module for module in model.modules() if hasattr(module, UPCAST)]
    for module in layers:
        setattr(module, UPCAST, True)
    (upcast,) = answers(model, onnx_config, samples)
    assert layers
    assert all(getattr(module, UPCAST) for module in layers)
    np.testing.assert_allclose(upcast.exact["logits"], plain.exact["logits"], rtol=1e-12, atol=1e-12)


def constructor(model_type, feature):
    from parity.features import constructor as build

    return build(model_type, feature)


@pytest.mark.parametrize("feature", ["seq2seq-lm", "seq2seq-lm-with-past"])
def test_a_decoder_with_fewer_ids_than_its_encoder(tmp_path, feature):
    """With Marian's `decoder_vocab_size`, each side draws from its own table."""
    save(tmp_path, "MarianMTModel", ("MarianConfig", {**MARIAN, "decoder_vocab_size": 60}), "t5")
    require_export(tmp_path, feature)


def test_every_id_of_a_large_vocabulary_can_be_drawn():
    """Also ids above 4,096 and ids that only the decoder has; none is outside its table."""
    from transformers import MarianConfig

    from parity.samples import SampleSource

    config = MarianConfig(**{**MARIAN, "decoder_vocab_size": 50_000})
    source = SampleSource(constructor("marian", "seq2seq-lm")(config), preprocessor("t5"), config)
    inputs = source.resize({"batch": 8, "encoder_sequence": 40, "decoder_sequence": 40}).inputs
    assert inputs["input_ids"].max() < 96
    assert 45_000 < inputs["decoder_input_ids"].max() < 50_000
    assert source.vocabulary == 50_000


@pytest.mark.parametrize("feature", ["causal-lm", "causal-lm-with-past"])
def test_a_padding_id_that_is_none(tmp_path, feature):
    """−1, as in decapoda-research/llama-7b-hf: padding uses a token in the table."""
    save(tmp_path, "LlamaForCausalLM", ("LlamaConfig", {**DECODER, "vocab_size": 96}), "gpt2", pad_token_id=-1)
    status, err, _ = command(tmp_path, feature)
    assert status == 0
    assert [line for line in err.splitlines() if "[transformers]" not in line] == []


def test_an_unknown_token_outside_the_table(tmp_path):
    """A tokenizer with tokens added after training: texts use only ids in the table."""
    import copy

    save(tmp_path, "LlamaForCausalLM", ("LlamaConfig", {**DECODER, "vocab_size": 96}))
    tokenizer = copy.deepcopy(preprocessor("gpt2"))
    tokenizer.add_special_tokens({"pad_token": "[PAD]", "unk_token": "<unk>"})
    tokenizer.save_pretrained(tmp_path)
    assert tokenizer.unk_token_id == 97
    require_export(tmp_path, "causal-lm")


@pytest.mark.parametrize("ids", [[1, 7, 99], [[1, 7], [99, 2]]])
def test_ids_outside_the_table_become_its_last(ids):
    """In lists, arrays and tensors; other ids stay."""
    import torch

    from parity.configs.tokens import within_vocabulary

    expected = np.minimum(ids, 95).tolist()
    assert within_vocabulary(ids, 96) == expected
    assert within_vocabulary(np.array(ids), 96).tolist() == expected
    assert within_vocabulary(torch.tensor(ids), 96).tolist() == expected
    assert within_vocabulary(ids, None) == ids


def test_a_page_whose_image_is_not_read(tmp_path):
    """LayoutLMv3 without `visual_embed` takes no pixels."""
    config = {**tiny_config("layoutlmv3").to_diff_dict(), "visual_embed": False, "num_hidden_layers": 1}
    save(tmp_path, "LayoutLMv3ForTokenClassification", ("LayoutLMv3Config", config), "layoutlmv3")
    assert list(require_export(tmp_path, "token-classification")) == ["input_ids", "bbox", "attention_mask"]


GREY = {
    "vit": ("ViTForImageClassification", ("ViTConfig", {**DECODER, "image_size": 32, "patch_size": 8})),
    "resnet": (
        "ResNetForImageClassification",
        ("ResNetConfig", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}),
    ),
}


@pytest.mark.parametrize("name", GREY)
@pytest.mark.parametrize("mean", [(0.5,), (0.5, 0.5, 0.5)], ids=["grey", "colours"])
def test_grey_images(tmp_path, name, mean):
    """`num_channels` 1, with a processor of grey images, or with one of three channels, which is reported."""
    model_class, (config, values) = GREY[name]
    save(tmp_path, model_class, (config, {**values, "num_channels": 1}))
    images(tmp_path, 32, 32, mean)
    status, err, inputs = command(tmp_path, "image-classification")
    assert status == 0
    assert inputs["pixel_values"][1] == 1
    told = ["warning: the image processor normalises 3 channels, the model takes 1: the file takes 1"]
    assert [line[: len(told[0])] for line in err.splitlines()] == (told if len(mean) == 3 else [])


RECTANGLES = {
    "swin": ("SwinForImageClassification", ("SwinConfig", {"image_size": [24, 48], **SWIN}), (24, 48)),
    "beit": (
        "BeitForImageClassification",
        ("BeitConfig", {**DECODER, "num_hidden_layers": 1, "vocab_size": 9, "image_size": [32, 48], "patch_size": 8}),
        (32, 48),
    ),
}


@pytest.mark.parametrize("name", RECTANGLES)
def test_images_that_are_no_squares(tmp_path, name):
    """`image_size` as a list of height and width: both stay dynamic."""
    model_class, config, size = RECTANGLES[name]
    save(tmp_path, model_class, config)
    images(tmp_path, *size)
    assert require_export(tmp_path, "image-classification")["pixel_values"][2:] == ("height", "width")


def test_the_sizes_of_a_rectangle_are_its_own():
    """Each up to three times the model's height or width."""
    from parity.declaration import image_sizes

    assert image_sizes(4, [24, 48]) == {"height": range(4, 73), "width": range(4, 145)}
    assert image_sizes(4, 24) == {"height": range(4, 73), "width": range(4, 73)}


@pytest.mark.skipif(not at_least("transformers", "5"), reason="its table has a place too many before transformers 5")
def test_absolute_positions_of_windows(tmp_path):
    """Swin with `use_absolute_embeddings` has a table for one size, and its file has that size."""
    save(
        tmp_path,
        "SwinForImageClassification",
        ("SwinConfig", {"image_size": 24, "use_absolute_embeddings": True, **SWIN}),
    )
    images(tmp_path, 24, 24)
    assert require_export(tmp_path, "image-classification")["pixel_values"] == ("batch", 3, 24, 24)


@pytest.mark.parametrize(("own", "size"), [(72, 72), (64, 65), (256, 200), (32, 65), (128, 72)])
def test_the_example_image_of_mobilevit_is_stretched_at_every_layer(own, size):
    """The largest possible size, if it is close to the model's own; else the next larger."""
    from parity.architectures.mobilevit import _STRIDES, _size_to_stretch

    assert _size_to_stretch(own, 2) == size
    assert all(-(-size // stride) % 2 for stride in _STRIDES)


def test_the_dummy_image_of_a_small_mobilevit_is_large_enough():
    """At 64 × 64 it used to be 8 × 8, which led to negative sizes."""
    from transformers import MobileViTConfig

    from parity.samples import SampleSource
    from parity.shapes import choose_samples

    config = MobileViTConfig(image_size=64)
    source = SampleSource(constructor("mobilevit", "default")(config), preprocessor("image64"), config)
    assert source.axes == {"batch": 2, "height": 65, "width": 65}
    assert min(size for sample in choose_samples(source) for size in sample.sizes.values()) > 0


FEW = {
    ("gpt2", "causal-lm-with-past", "n_positions"): ("GPT2LMHeadModel", "GPT2Config", 16),
    ("gpt2", "causal-lm", "n_positions"): ("GPT2LMHeadModel", "GPT2Config", 6),
    ("bert", "default", "max_position_embeddings"): ("BertModel", "BertConfig", 6),
    ("roberta", "default", "max_position_embeddings"): ("RobertaModel", "RobertaConfig", 6),
}


@pytest.mark.parametrize("case", FEW, ids=lambda case: f"{case[0]}-{case[1]}")
def test_few_positions(tmp_path, case):
    """Dummy inputs and samples are at most as long as the model's table, including the past."""
    name, feature, item = case
    model_class, config, positions = FEW[case]
    save(tmp_path, model_class, (config, {**tiny_config(name).to_diff_dict(), item: positions}), name)
    require_export(tmp_path, feature)


# Architecture, feature, changed items → tokens of a dummy text, including its past.
FITTING = [
    ("bert", "multiple-choice", {"max_position_embeddings": 6}, 6),
    ("roberta", "multiple-choice", {"max_position_embeddings": 6}, 4),
    ("layoutlmv3", "default", {"max_position_embeddings": 6}, 4),
    # One less than a window, so that the padding to a window is traced.
    ("longformer", "default", {"max_position_embeddings": 6, "attention_window": 4}, 3),
    ("big-bird", "multiple-choice", {"attention_type": "block_sparse"}, 40),
    ("bart", "seq2seq-lm-with-past", {"max_position_embeddings": 6}, 6),
    ("whisper", "default-with-past", {"max_target_positions": 6}, 6),
    ("gptj", "causal-lm-with-past", {"n_positions": 9}, 8),
    ("bert", "multiple-choice", {}, 15),
]


@pytest.mark.parametrize(("name", "feature", "changes", "tokens"), FITTING)
def test_dummy_texts_fit_the_table_of_positions(name, feature, changes, tokens):
    """In pairs, after padding, with a past, and if the model takes only one length."""
    from parity.samples import SampleSource

    config = tiny_config(name, changes)
    source = SampleSource(constructor(name, feature)(config), preprocessor(architecture(name).preprocessor), config)
    assert source.generate().tokens == tokens


def test_a_pair_has_no_more_token_types_than_the_model():
    """With a table of one, the tokenizer still counts the second text as another type."""
    from parity.samples import SampleSource

    for types, largest in ((1, 0), (2, 1)):
        config = tiny_config("bert", {"type_vocab_size": types})
        source = SampleSource(constructor("bert", "multiple-choice")(config), preprocessor("bert"), config)
        assert source.dummy["token_type_ids"].max() == largest


LONGROPE = {
    "max_position_embeddings": 9,
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "factor": 2.0,
        "original_max_position_embeddings": 6,
        "short_factor": [1.0, 1.25, 1.5, 1.75],
        "long_factor": [2.0, 2.5, 3.0, 3.5],
    },
}


@pytest.mark.skipif(not at_least("transformers", "5"), reason="transformers 4 takes the short factors for any length")
@pytest.mark.parametrize("feature", ["causal-lm", "causal-lm-with-past"])
def test_positions_that_the_length_of_the_text_decides(feature, monkeypatch):
    """A longrope Llama is right on both sides of its original length; without the patch it is wrong or fails."""
    from parity.architectures.llama import LlamaOnnxConfig
    from parity.fixtures import configurations

    assert configurations.judge("llama", feature, LONGROPE, 17).passed
    monkeypatch.setattr(LlamaOnnxConfig, "patch_ops", lambda config: None)
    monkeypatch.setattr(LlamaOnnxConfig, "restore_ops", lambda config: None)
    with pytest.raises((ExportError, ValueMismatch)):
        configurations.judge("llama", feature, LONGROPE, 17)


def test_samples_of_few_positions_are_of_different_lengths():
    """With and without a past; no length is 0, and no past is as long as the text at the export."""
    from parity.shapes import default_sizes

    for limit in (2, 3, 6, 9, 16):
        for axes in ({"sequence": 2}, {"sequence": 2, "past_sequence": 4}):
            sizes = [each for each, _ in default_sizes({"batch": 2, **axes}, limit)]
            totals = [each["sequence"] + each.get("past_sequence", 0) for each in sizes]
            assert min(each["sequence"] for each in sizes) == 1
            assert max(totals) <= limit
            assert len(set(totals)) > 1


@pytest.fixture(scope="module")
def talkative():
    """A DistilBERT that returns its hidden states and attentions."""
    from transformers import AutoModel

    config = tiny_config("distilbert")
    config.output_hidden_states = config.output_attentions = True
    model = AutoModel.from_config(config, attn_implementation="eager")
    scramble(model)
    return model.eval()


def with_outputs(*names):
    from parity.architectures.distilbert import DistilBertOnnxConfig

    class Custom(DistilBertOnnxConfig):
        @property
        def outputs(self):
            text = {0: "batch", 1: "sequence"}
            axes = {"attentions": {0: "batch", 2: "sequence", 3: "sequence"}}
            return OrderedDict((name, axes.get(name.partition(".")[0], text)) for name in names)

    return Custom


def test_hidden_states_and_attentions(talkative, tmp_path):
    """One output per layer, `hidden_states.0` …, for any batch."""
    names = [*(f"hidden_states.{layer}" for layer in range(3)), *(f"attentions.{layer}" for layer in range(2))]
    config = with_outputs("last_hidden_state", *names)(talkative.config)
    tokenizer, path = preprocessor("distilbert"), tmp_path / "model.onnx"
    _, outputs = export(tokenizer, talkative, config, 13, path)
    assert outputs == ["last_hidden_state", *names]
    validate_model_outputs(config, tokenizer, talkative, path, outputs, 1e-4)


def test_a_collection_that_is_asked_for_whole_is_refused(talkative, tmp_path):
    """The message has the names of its elements."""
    config = with_outputs("last_hidden_state", "hidden_states")(talkative.config)
    with pytest.raises(NameMismatch, match=r"hidden_states are declared, .*hidden_states\.0, .*hidden_states\.2, "):
        export(preprocessor("distilbert"), talkative, config, 13, tmp_path / "model.onnx")


def test_imitated_integers_are_refused(tmp_path):
    """I-BERT's `quant_mode`: one sentence with the value and the thread; without it the model is exported."""
    config = {**tiny_config("ibert").to_diff_dict(), "quant_mode": True}
    model = save(tmp_path, "IBertModel", ("IBertConfig", config), "roberta")
    status, err, _ = command(tmp_path, "default")
    assert status == 2
    (line,) = err.splitlines()
    assert "ibert: quant_mode is true: " in line
    assert "set it to false" in line
    assert "I-BERT/issues/1" in line
    with pytest.raises(UsageError, match="quant_mode is true"):
        export(preprocessor("roberta"), model, constructor("ibert", "default")(model.config), 13, tmp_path / "x.onnx")
    assert not (tmp_path / "x.onnx").exists()


@pytest.mark.parametrize("missing", ["item", "reason", "issue"])
def test_a_refusal_says_why(missing):
    """A declared refusal has an item, a reason and a thread."""
    words = {"item": "quant_mode", "reason": "why", "issue": "https://example.org", missing: ""}
    with pytest.raises(ValueError, match=f"{missing} is empty"):
        Refusal(value=True, **words)


PARTS = {
    "t5's encoder": (
        "T5EncoderModel",
        "T5Config",
        "t5",
        "default",
        1,
        "has no weights for decoder.* and 3[0-9] others, which default needs",
    ),
    "t5's classifier": ("T5ForSequenceClassification", "T5Config", "t5", "sequence-classification", 2, "supported: "),
    "t5 for tokens": ("T5ForTokenClassification", "T5Config", "t5", "token-classification", 2, "supported: "),
    "clip's text tower": ("CLIPTextModel", "CLIPTextConfig", "clip", "default", 2, "clip_text_model is not supported"),
    "clip's image tower": (
        "CLIPVisionModel",
        "CLIPVisionConfig",
        "image32",
        "default",
        2,
        "clip_vision_model is not supported",
    ),
}


@pytest.mark.parametrize("part", PARTS)
def test_parts_of_models_are_refused_in_one_sentence(tmp_path, part):
    """No feature is declared for them."""
    model_class, config, own, feature, expected, says = PARTS[part]
    whole = tiny_config("clip")
    values = {
        "T5Config": tiny_config("t5").to_diff_dict(),
        "CLIPTextConfig": whole.text_config.to_diff_dict(),
        "CLIPVisionConfig": whole.vision_config.to_diff_dict(),
    }[config]
    save(tmp_path, model_class, (config, values), own)
    status, err, _ = command(tmp_path, feature)
    assert status == expected
    lines = [line for line in err.splitlines() if "[transformers]" not in line]
    assert len(lines) == 1
    assert re.search(says, lines[0])


@pytest.mark.skipif(not at_least("transformers", "5"), reason="transformers 4 interpolates no positions unless asked")
def test_what_the_model_itself_refuses_is_not_the_exporters_fault(tmp_path):
    """BEiT with absolute positions cannot read rectangles, not even in PyTorch."""
    values = {**RECTANGLES["beit"][1][1], "use_absolute_position_embeddings": True}
    save(tmp_path, "BeitForImageClassification", ("BeitConfig", values))
    images(tmp_path, 32, 48)
    status, err, _ = command(tmp_path, "image-classification")
    assert status == 1
    assert "the model itself refuses the example inputs: RuntimeError: " in err
    assert "the exporter failed" not in err


# Widths at which ONNX's Resize picks another pixel of the mask than torch: microsoft/onnxruntime#12098.
WIDTHS = (52, 56, 60, 78, 84)


@pytest.fixture(scope="module")
def detr():
    """The tiny DETR, its configuration, and a function: width → inputs."""
    import torch

    from parity.fixtures import subjects

    subject = subjects.subject("detr", "object-detection")

    def inputs(width):
        generator = torch.Generator().manual_seed(width)
        pixels = torch.randn((1, 3, 40, width), generator=generator)
        mask = torch.zeros((1, 40, width), dtype=torch.long)
        # An edge between any two columns of the mask shows which one is picked.
        mask[..., torch.arange(width) % 2 == 0] = 1
        return {"pixel_values": pixels, "pixel_mask": mask}

    return subject, inputs


def answers_at_widths(detr, path):
    """Width → largest difference of the boxes between file and model."""
    import torch

    from parity.sessions import OnnxSession

    subject, inputs = detr
    session, model = OnnxSession(path), subject.fresh_model()
    differences = {}
    for width in WIDTHS:
        tensors = inputs(width)
        with torch.no_grad():
            reference = model(**tensors).pred_boxes.numpy()
        answer = session.run({name: tensor.numpy() for name, tensor in tensors.items()})["pred_boxes"]
        differences[width] = float(np.abs(answer - reference).max())
    return differences


def test_a_mask_is_resized_as_torch_does(detr, tmp_path):
    """At widths where the operator Resize picks another pixel, the file is right; without the patch it is wrong."""
    from parity.architectures.resnet import ResNetOnnxConfig

    subject, _ = detr
    export(subject.preprocessor, subject.model, subject.onnx_config, 13, tmp_path / "model.onnx")
    assert max(answers_at_widths(detr, tmp_path / "model.onnx").values()) < 1e-5

    unpatched = type(subject.onnx_config)(subject.model.config, task="object-detection")
    unpatched._patching_specs = []
    assert isinstance(unpatched, ResNetOnnxConfig)
    export(subject.preprocessor, subject.model, unpatched, 13, tmp_path / "resize.onnx")
    assert max(answers_at_widths(detr, tmp_path / "resize.onnx").values()) > 1e-4


def test_the_nearest_place_is_torchs_at_every_width():
    """Shrunk by the strides of a backbone, from 32 to 1,333 pixels, and enlarged again."""
    import torch
    from torch.nn.functional import interpolate

    from parity.architectures.detr import _nearest

    pairs = [(width, -(-width // 32)) for width in range(32, 1334)]
    pairs += [(length, target) for length in range(1, 43) for target in (2 * length - 1, 2 * length, 2 * length + 1)]
    for length, target in pairs:
        row = torch.arange(length, dtype=torch.float32).view(1, 1, 1, length)
        assert _nearest(length, target).tolist() == interpolate(row, size=(1, target))[0, 0, 0].long().tolist()
