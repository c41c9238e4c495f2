"""What is claimed of AWS Inf1: architectures and features, by AWS's own list, and the compiled sizes."""

from parity.declaration import BIDIRECTIONAL_FEATURES

# What AWS documents as running well on Inf1: encoders of the kind of BERT, without what generates, as its guide to
# architectures has it, and ViT and MarianMT, of which it has tutorials.
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
# Shapes are fixed when a model is compiled: two batches and two lengths, by variant.
NEURON_SIZES = {f"b{batch}-l{length}": {"batch": batch, "sequence": length} for batch in (1, 4) for length in (16, 32)}
NEURON_IMAGE_SIZES = {f"b{batch}": {"batch": batch} for batch in (1, 4)}
EMULATION = "emulation"
