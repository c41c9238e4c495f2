"""LayoutLMv3: an encoder of words with their boxes on a page, and of the page's image of one size."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from packaging import version

from parity.architectures.bert import ENCODER_VARIATIONS, HEADS
from parity.architectures.roberta import PositionsBehindPadding
from parity.declaration import PILLOW, RELATIONS, Absence, Architecture, Floor, Variation, token_axes

if TYPE_CHECKING:
    from PIL import Image
    from transformers import BatchEncoding, BatchFeature, PreTrainedTokenizerBase, ProcessorMixin
    from transformers.image_processing_utils import ImageProcessingMixin


class LayoutLMv3OnnxConfig(PositionsBehindPadding):
    """Token ids, attention mask, boxes and pixels; the order of the first three depends on the task.

    A model without `visual_embed` reads only the text.
    """

    torch_onnx_minimum_version = version.parse("1.12")

    @property
    def inputs(self) -> Mapping[str, Mapping[int, str]]:
        names = ("input_ids", "attention_mask", "bbox")
        if self.task in ("default", "token-classification"):
            names = ("input_ids", "bbox", "attention_mask")
        pixels = {"pixel_values": {0: "batch"}} if self._config.visual_embed else {}
        return OrderedDict(token_axes(self.task, *names), **pixels)

    @property
    def outputs(self) -> Mapping[str, Mapping[int, str]]:
        if self._config.visual_embed and self.task in ("default", "question-answering"):
            return OrderedDict((name, {0: "batch", 1: "tokens_and_patches"}) for name in super().outputs)
        return super().outputs

    @property
    def default_onnx_opset(self) -> int:
        return 12

    def generate_dummy_inputs(self, preprocessor: ProcessorMixin, *args: Any, **options: Any) -> Mapping[str, Any]:
        """Words and boxes from the processor's tokenizer, and images from its image processor, without OCR.

        Args:
            preprocessor: has a tokenizer and an image processor.
            args, options: as in the base class.
        """
        generate = super().generate_dummy_inputs
        texts = generate(WordsInBoxes(getattr(preprocessor, "tokenizer", preprocessor)), *args, **options)
        if not self._config.visual_embed:
            return texts
        return {**texts, **generate(WithoutOcr(preprocessor.image_processor), *args, **options)}


class _Wrapper:
    """Wraps a preprocessor and changes how it is called."""

    def __init__(self, preprocessor: PreTrainedTokenizerBase | ImageProcessingMixin) -> None:
        self._preprocessor = preprocessor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._preprocessor, name)


class WordsInBoxes(_Wrapper):
    """A tokenizer that treats each text as one word in a box."""

    def __call__(self, texts: Sequence[str], **options: Any) -> BatchEncoding:
        boxes = [[[10, 20, 40, 30]]] * len(texts)
        return self._preprocessor([[text] for text in texts], boxes=boxes, **options)


class WithoutOcr(_Wrapper):
    """An image processor without OCR."""

    def __call__(self, images: Sequence[Image.Image], **options: Any) -> BatchFeature:
        return self._preprocessor(images=images, apply_ocr=False, **options)


VARIATIONS = (
    *ENCODER_VARIATIONS,
    HEADS,
    Variation("type_vocab_size", (1, 3)),
    Variation("has_relative_attention_bias", (False,)),
    Variation("has_spatial_attention_bias", (False,)),
    Variation("visual_embed", (False,)),
    Variation("rel_pos_bins", (4, 16)),
    Variation(("coordinate_size", "shape_size"), ((3, 10),)),
)

ARCHITECTURE = Architecture(
    model_type="layoutlmv3",
    kind="multimodal",
    onnx_config=LayoutLMv3OnnxConfig,
    features=("default", "question-answering", "sequence-classification", "token-classification"),
    tiny={
        "vocab_size": 96,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 40,
        "max_2d_position_embeddings": 128,
        "coordinate_size": 5,
        "shape_size": 6,
        "rel_pos_bins": 8,
        "max_rel_pos": 16,
        "rel_2d_pos_bins": 12,
        "max_rel_2d_pos": 64,
        "input_size": 32,
        "patch_size": 8,
    },
    preprocessor="layoutlmv3",
    sdpa="transformers>=5.24",
    floors=(
        Floor(
            opset=12,
            reason="Min takes int64 only from opset 12, and relative position buckets are int64",
            issue="https://onnx.ai/onnx/operators/onnx__Min.html",
            # For Min; since transformers 5.24 for Clip.
            error="Type 'tensor(int64)' of input parameter",
        ),
    ),
    # If the image's patches follow the tokens, padding is in the middle.
    relations={"default": RELATIONS["vision"], "question-answering": RELATIONS["vision"]},
    absences=(
        Absence(
            weights=("*.rel_pos_bias.weight", "*.rel_pos_x_bias.weight", "*.rel_pos_y_bias.weight"),
            reason="the biases of all distances are looked up at once, in which no input has a part",
            versions="transformers>=5.24",
        ),
    ),
    versions=PILLOW,
    variations=VARIATIONS,
)
