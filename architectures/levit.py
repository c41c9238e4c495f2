"""LeViT: an image encoder of convolutions and attention, for images of one size."""

from parity.architectures.vit import ViTOnnxConfig
from parity.declaration import Absence, Architecture, Variation


class LevitOnnxConfig(ViTOnnxConfig):
    """Pixels; only the batch is dynamic: the model refuses other image sizes."""


VARIATIONS = (
    Variation("image_size", (96,)),
    Variation("num_channels", (1, 4)),
    Variation("key_dim", ([8, 8, 8],)),
    Variation("num_attention_heads", ([1, 2, 2],)),
    Variation("attention_ratio", ([1, 2, 3],)),
    Variation("depths", ([1, 1, 1],)),
    Variation("num_labels", (1, 5), features=("image-classification",)),
)

ARCHITECTURE = Architecture(
    model_type="levit",
    kind="vision",
    onnx_config=LevitOnnxConfig,
    features=("default", "image-classification"),
    tiny={
        "architectures": ["LevitForImageClassificationWithTeacher"],
        "hidden_sizes": [16, 24, 32],
        "num_attention_heads": [2, 3, 4],
        "depths": [2, 3, 1],
        "key_dim": [4, 8, 8],
        "image_size": 64,
    },
    preprocessor="image64",
    absences=(
        Absence(
            weights=("*patch_embeddings.*.convolution.weight", "*patch_embeddings.*.batch_norm.*"),
            reason="the exporter folds the batch norms of the patches into the convolutions before them",
        ),
    ),
    variations=VARIATIONS,
)
