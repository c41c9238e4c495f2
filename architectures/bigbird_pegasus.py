"""BigBird-Pegasus: an encoder-decoder whose encoder looks at everything, or at a random choice of blocks."""

from parity.architectures.bart import ARCHITECTURE as BART
from parity.architectures.bart import SHALLOW, BartOnnxConfig
from parity.declaration import GENERATE_WITHOUT_MASK, Architecture


class BigBirdPegasusOnnxConfig(BartOnnxConfig):
    """The inputs of BART.

    The blocks of `block_sparse` are chosen anew for every length, so a file that runs such an encoder is for texts
    padded to `max_position_embeddings`. Load the model with `attention_type="original_full"` for a file for any length.
    """

    @property
    def inputs(self):
        return self._claimed(super().inputs)

    @property
    def outputs(self):
        return self._claimed(super().outputs)

    def generate_dummy_inputs(self, tokenizer, batch_size=-1, seq_length=-1, is_pair=False, framework=None):
        length = self._config.max_position_embeddings if self._fixed else seq_length
        return super().generate_dummy_inputs(tokenizer, batch_size, length, is_pair, framework)

    @property
    def _fixed(self):
        config = self._config
        runs_encoder = self.task != "causal-lm" and (not self.use_past or self.part == "prefill")
        # Up to here the model looks at everything even so.
        whole = (5 + 2 * config.num_random_blocks) * config.block_size
        return runs_encoder and config.attention_type == "block_sparse" and config.max_position_embeddings > whole

    def _claimed(self, axes):
        fixed = ("encoder_sequence", "sequence") if self._fixed else ()
        return type(axes)((name, {a: n for a, n in of.items() if n not in fixed}) for name, of in axes.items())


ARCHITECTURE = Architecture(
    model_type="bigbird_pegasus",
    kind="encoder-decoder",
    onnx_config=BigBirdPegasusOnnxConfig,
    features=BART.features,
    tiny={**SHALLOW, "attention_type": "original_full", "block_size": 4, "num_random_blocks": 1},
    preprocessor="t5",
    deviations=(GENERATE_WITHOUT_MASK,),
)
