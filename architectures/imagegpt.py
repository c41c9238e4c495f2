"""ImageGPT: a decoder whose tokens are the pixels of an image, each the nearest colour of a palette."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from parity.architectures.gpt2 import REORDERED
from parity.configs import OnnxConfig, PatchingSpec
from parity.declaration import PILLOW, RELATIONS, Architecture, Variation

if TYPE_CHECKING:
    from transformers import PretrainedConfig
    from transformers.image_processing_utils import ImageProcessingMixin
    from transformers.utils import TensorType


class ImageGPTOnnxConfig(OnnxConfig):
    """Colour ids; images with any number of pixels up to the number of positions."""

    def __init__(
        self, config: PretrainedConfig, task: str = "default", patching_specs: Iterable[PatchingSpec] | None = None
    ) -> None:
        super().__init__(config, task, [*(patching_specs or []), *_patches()])

    @property
    def inputs(self) -> Mapping[str, Mapping[int, str]]:
        return OrderedDict(input_ids={0: "batch", 1: "sequence"})

    def generate_dummy_inputs(
        self,
        preprocessor: ImageProcessingMixin,
        batch_size: int = -1,
        seq_length: int = -1,
        num_choices: int = -1,
        is_pair: bool = False,
        framework: TensorType | None = None,
        *args: Any,
        **options: Any,
    ) -> Mapping[str, Any]:
        """The colours of images of the processor's own size.

        Args:
            preprocessor: the image processor.
            batch_size: number of images; -1 for the default.
            seq_length, num_choices, is_pair: not used.
            framework: `pt` for torch tensors.
        """
        count = batch_size if batch_size > 0 else self.default_batch_size
        return dict(preprocessor(images=self._generate_dummy_images(count), return_tensors=framework))


def _patches() -> list[PatchingSpec]:
    """The square root of the head size: transformers 4.46 truncates it in eager mode, but not while tracing."""
    from transformers.models.imagegpt import modeling_imagegpt

    own = modeling_imagegpt.torch_float
    return [PatchingSpec(modeling_imagegpt, "torch_float", lambda root: own(float(root)), orig_op=own)]


VARIATIONS = (
    Variation("activation_function", ("relu", "gelu")),
    Variation("n_layer", (1, 3)),
    Variation("n_head", (1, 8)),
    Variation("n_positions", (64, 20)),
    Variation("n_inner", (None,)),
    Variation("scale_attn_weights", (False,)),
    Variation("scale_attn_by_inverse_layer_idx", (True,)),
    REORDERED,
    Variation("num_labels", (1, 5), features=("image-classification",)),
)

ARCHITECTURE = Architecture(
    model_type="imagegpt",
    kind="decoder",
    onnx_config=ImageGPTOnnxConfig,
    features=("default", "image-classification"),
    tiny={"vocab_size": 96, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40, "n_inner": 48},
    preprocessor="palette",
    # The colours of an image have no mask.
    relations={"*": RELATIONS["vision"]},
    versions=PILLOW,
    variations=VARIATIONS,
)
