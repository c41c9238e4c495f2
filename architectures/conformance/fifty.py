"""The architectures of the document that the project implements."""

# The architectures of the document: the project's promises count only these, however many are added.
_FIFTY = """
albert bart beit bert big-bird bigbird-pegasus blenderbot blenderbot-small bloom camembert clip codegen convbert
convnext convnextv2 data2vec-text data2vec-vision deberta deberta-v2 deit detr distilbert electra flaubert gpt-neo
gpt2 gptj ibert layoutlm layoutlmv3 levit longt5 m2m-100 marian mbart mobilebert mobilevit mt5 perceiver plbart resnet
roberta roformer squeezebert t5 vit xlm xlm-roberta xlm-roberta-xl yolos
"""
FIFTY = tuple(_FIFTY.split())
