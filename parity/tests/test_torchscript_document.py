"""The document's TorchScript part: its snippets verbatim if its flag exists, and rewritten otherwise."""

import pytest

from parity.environment import at_least
from parity.fixtures.checkpoints import scramble, tiny_config

NEW = at_least("transformers", "5")
# Replaces `google-bert/bert-base-uncased`: a tiny model whose vocabulary has the words of the text.
NAME = "google-bert/bert-base-uncased"
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "who", "was", "jim", "henson", "?", "a", "puppet", "##eer"]

SAVE = """
from transformers import BertModel, BertTokenizer, BertConfig
import torch

enc = BertTokenizer.from_pretrained("google-bert/bert-base-uncased")

# Tokenizing input text
text = "[CLS] Who was Jim Henson ? [SEP] Jim Henson was a puppeteer [SEP]"
tokenized_text = enc.tokenize(text)

# Masking one of the input tokens
masked_index = 8
tokenized_text[masked_index] = "[MASK]"
indexed_tokens = enc.convert_tokens_to_ids(tokenized_text)
segments_ids = [0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1]

# Creating a dummy input
tokens_tensor = torch.tensor([indexed_tokens])
segments_tensors = torch.tensor([segments_ids])
dummy_input = [tokens_tensor, segments_tensors]

# Initializing the model with the torchscript flag
# Flag set to True even though it is not necessary as this model does not have an LM Head.
config = BertConfig(
    vocab_size_or_config_json_file=32000,
    hidden_size=768,
    num_hidden_layers=12,
    num_attention_heads=12,
    intermediate_size=3072,
    torchscript=True,
)

# Instantiating the model
model = BertModel(config)

# The model needs to be in evaluation mode
model.eval()

# If you are instantiating the model with *from_pretrained* you can also easily set the TorchScript flag
model = BertModel.from_pretrained("google-bert/bert-base-uncased", torchscript=True)

# Creating the trace
traced_model = torch.jit.trace(model, [tokens_tensor, segments_tensors])
torch.jit.save(traced_model, "traced_bert.pt")
"""

LOAD = """
loaded_model = torch.jit.load("traced_bert.pt")
loaded_model.eval()

all_encoder_layers, pooled_output = loaded_model(*dummy_input)
"""

USE = """
traced_model(tokens_tensor, segments_tensors)
"""

# Without the flag, a bare trace raises on the model's dictionary: one import and one call differ.
REWRITTEN = SAVE.replace("    torchscript=True,\n", "").replace(", torchscript=True)", ")")
REWRITTEN = REWRITTEN.replace("import torch\n", "import torch\nfrom parity.torchscript import export\n").replace(
    'torch.jit.trace(model, [tokens_tensor, segments_tensors])\ntorch.jit.save(traced_model, "traced_bert.pt")',
    'export(model, [tokens_tensor, segments_tensors], "traced_bert.pt")',
)
# The document's own configuration has the full size, and is unused after two lines.
SMALL = {"hidden_size=768": "hidden_size=48", "num_hidden_layers=12": "num_hidden_layers=2", "=3072": "=64"}


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    """A working directory in which the document's name is a directory with a checkpoint."""
    from transformers import BertModel

    monkeypatch.chdir(tmp_path)
    directory = tmp_path / NAME
    model = BertModel(tiny_config("bert"))
    scramble(model)
    model.save_pretrained(directory)
    (directory / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")


def run(*snippets):
    """Run the snippets one after the other; returns their names."""
    names = {}
    for snippet in snippets:
        exec(snippet, names)
    return names


def answer(model, **inputs):
    import torch

    with torch.no_grad():
        return model.eval()(**inputs, return_dict=True).last_hidden_state


def difference(first, second):
    return float((first - second).abs().max())


@pytest.mark.skipif(NEW, reason="the snippets need the flag torchscript of transformers 4")
@pytest.mark.filterwarnings("ignore")  # torch deprecates functions in the document
def test_snippets_run_as_they_stand(checkpoint):
    """Saving, loading and using run verbatim; the loaded trace answers like the model."""
    names = run(SAVE, LOAD, USE)
    tokens, segments = names["dummy_input"]
    assert tokens.shape == (1, 14)
    assert (
        difference(names["all_encoder_layers"], answer(names["model"], input_ids=tokens, attention_mask=segments))
        < 1e-5
    )


@pytest.mark.skipif(NEW, reason="the snippets need the flag torchscript of transformers 4")
@pytest.mark.filterwarnings("ignore")
def test_export_answers_as_the_documents_trace(checkpoint):
    """`export` of the same model with the same list gives the flag's two outputs, in its order."""
    import torch

    from parity.torchscript import export

    names = run(SAVE, LOAD)
    ours = export(names["model"], names["dummy_input"])(*names["dummy_input"])
    theirs = names["loaded_model"](*names["dummy_input"])
    assert len(ours) == len(theirs) == 2
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_rewritten_snippets_run(checkpoint):
    """With one other import and one other call the lines run on every transformers; loading and using are verbatim."""
    snippet = REWRITTEN
    for full, small in SMALL.items():
        snippet = snippet.replace(full, small)
    names = run(snippet, LOAD, USE)
    tokens, segments = names["dummy_input"]
    reference = answer(names["model"], input_ids=tokens, attention_mask=segments)
    assert names["all_encoder_layers"].shape == (1, 14, 32)
    assert names["pooled_output"].shape == (1, 32)
    assert difference(names["all_encoder_layers"], reference) < 1e-5
    assert difference(names["traced_model"](tokens, segments)[0], reference) < 1e-5


def test_rewriting_changes_four_places():
    """The rewritten text differs only in the flag, an import, and the two lines that trace and save."""
    import difflib

    changed = [line for line in difflib.ndiff(SAVE.splitlines(), REWRITTEN.splitlines()) if line[0] in "+-"]
    assert [line[:2] + line[2:].strip()[:23] for line in changed] == [
        "+ from parity.torchscript",
        "- torchscript=True,",
        "- model = BertModel.from_",
        "+ model = BertModel.from_",
        "- traced_model = torch.ji",
        "+ traced_model = export(m",
        "- torch.jit.save(traced_m",
    ]


@pytest.mark.filterwarnings("ignore")
def test_documents_list_feeds_the_segments_as_the_mask(checkpoint):
    """The document's "segments" become the attention mask; passed by name they are token types, with other answers."""
    from parity.torchscript import export

    names = run(REWRITTEN.partition("# Initializing the model")[0], "from transformers import BertModel")
    model = names["BertModel"].from_pretrained(NAME).eval()
    tokens, segments = names["dummy_input"]
    lines = []
    bare = export(model, [tokens, segments], say=lines.append)(tokens, segments)[0]
    by_name = export(model, {"token_type_ids": segments, "input_ids": tokens})(tokens, segments)[0]
    assert lines[1] == "Input 1: attention_mask, int64 (1, 14)"
    assert difference(by_name, answer(model, input_ids=tokens, token_type_ids=segments)) < 1e-5
    assert difference(bare, by_name) > 0.1


@pytest.mark.skipif(not NEW, reason="transformers 4 honours the flag")
@pytest.mark.filterwarnings("ignore")
def test_snippets_as_they_stand_fail_where_the_flag_is_gone(checkpoint):
    """transformers 5 raises on the document's own text, so it has to be rewritten."""
    snippet = SAVE.replace("hidden_size=768", "hidden_size=48").replace("num_hidden_layers=12", "num_hidden_layers=2")
    with pytest.raises((TypeError, RuntimeError)):
        run(snippet)
