"""BigBird: an encoder that looks at everything, or at a choice of blocks."""

from parity.architectures.bert import ARCHITECTURE as BERT
from parity.architectures.distilbert import DistilBertOnnxConfig
from parity.declaration import ENCODER_FEATURES, Architecture


class BigBirdOnnxConfig(DistilBertOnnxConfig):
    """Token ids and attention mask.

    The blocks of `block_sparse` are laid out for one length, so the file of such a model is for texts padded to
    `max_position_embeddings`. Load the model with `attention_type="original_full"` for a file for any length.
    """

    @property
    def inputs(self):
        return self._claimed(super().inputs)

    @property
    def outputs(self):
        return self._claimed(super().outputs)

    @property
    def default_sequence_length(self):
        return self._config.max_position_embeddings if self._fixed else super().default_sequence_length

    @property
    def _fixed(self):
        config = self._config
        # Up to here the model looks at everything even so.
        whole = (5 + 2 * config.num_random_blocks) * config.block_size
        return config.attention_type == "block_sparse" and config.max_position_embeddings > whole

    def _claimed(self, axes):
        fixed = ("sequence",) if self._fixed else ()
        return type(axes)((name, {a: n for a, n in of.items() if n not in fixed}) for name, of in axes.items())


ARCHITECTURE = Architecture(
    model_type="big_bird",
    kind="encoder",
    onnx_config=BigBirdOnnxConfig,
    features=ENCODER_FEATURES,
    tiny={**BERT.tiny, "attention_type": "original_full", "block_size": 4, "num_random_blocks": 1},
    preprocessor="distilbert",
)
