"""Claims about AWS Inf1: architectures and features from AWS's own list, and the compiled sizes."""

from parity.declaration import BIDIRECTIONAL_FEATURES

# Models that AWS documents as running well on Inf1: BERT-like encoders without generation, by its guide to
# architectures, and ViT and MarianMT, by its tutorials.
NEURON_ENCODERS = (
    "albert",
    "bert",
    "camembert",
    "data2vec-text",
    "distilbert",
    "electra",
    "flaubert",
    "ibert",
    "layoutlm",
    "mobilebert",
    "rembert",
    "roberta",
    "roformer",
    "squeezebert",
    "xlm",
    "xlm-roberta",
)
NEURON_FEATURES = {
    **dict.fromkeys(NEURON_ENCODERS, BIDIRECTIONAL_FEATURES),
    "vit": ("default", "image-classification"),
    "marian": ("seq2seq-lm",),
}
# Compiling fixes the shapes: two batch sizes and two lengths, by variant.
NEURON_SIZES = {f"b{batch}-l{length}": {"batch": batch, "sequence": length} for batch in (1, 4) for length in (16, 32)}
NEURON_IMAGE_SIZES = {f"b{batch}": {"batch": batch} for batch in (1, 4)}
EMULATION = "emulation"
