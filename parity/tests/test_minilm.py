"""A trained checkpoint: the exported directory alone gives PyTorch's sentence similarities."""

import contextlib
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from parity.fixtures import minilm
from parity.onnx.__main__ import main

README = Path(__file__).parents[2] / "README.md"

SENTENCES = [
    "A man is eating food.",
    "A man is eating a piece of bread.",
    "The girl is carrying a baby.",
    "A woman is playing the violin.",
    "Two men pushed carts through the woods, slowly, one after the other, until night fell.",
    "Someone in a gorilla costume is playing a set of drums.",
]

SECOND_OPINION = """
import json, sys
from sentence_transformers import SentenceTransformer
print(json.dumps(SentenceTransformer(sys.argv[1], device="cpu").encode(json.loads(sys.argv[2])).tolist()))
"""


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """What the README's command prints, and the directory that it wrote, moved, so that nothing reads the old place."""
    directory, printed = tmp_path_factory.mktemp("minilm"), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        assert main([f"--model={minilm.directory()}", str(directory / "onnx")]) == 0
    shutil.move(directory / "onnx", directory / "moved")
    return printed.getvalue().replace(f"{directory}/", ""), directory / "moved"


@pytest.fixture(scope="module")
def export_directory(export):
    """The exported directory alone."""
    return export[1]


def mean_pool(hidden, mask):
    """Mean of the hidden states (batch, sequence, size) where the mask is 1, of unit length."""
    weights = mask[..., None].astype(hidden.dtype)
    mean = (hidden * weights).sum(1) / weights.sum(1)
    return mean / np.linalg.norm(mean, axis=1, keepdims=True)


def test_the_example_of_the_readme_runs_from_the_directory_alone(export_directory, tmp_path):
    """The README's Python example works unchanged next to a directory `onnx` that was moved there."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (example,) = [block for block in blocks if "InferenceSession" in block]
    (tmp_path / "onnx").symlink_to(export_directory, target_is_directory=True)
    code = example + "\nprint(outputs[0].shape)\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert re.fullmatch(r"\(1, \d+, 384\)", done.stdout.strip())


def shows(text, printed):
    """Whether a text shows what was printed: `…` stands for anything, and measured numbers may be others."""
    pattern = re.escape(text).replace("…", "[^•]*?")
    pattern = re.sub(r"(ratio\\ \\\(|difference\\ )[\d.e\\-]+", r"\1[\\d.e-]+", pattern)
    # Rounding decides whether the largest difference is above the tolerance.
    pattern = pattern.replace(re.escape(", above atol 1e-05"), "(?:, above atol 1e-05)?")
    return re.fullmatch(pattern, printed) is not None


def test_the_readme_shows_what_the_command_prints(export):
    """Line by line, but for paths, measured numbers and lines that are left out."""
    text = README.read_text(encoding="utf-8")
    (shown,) = [each for each in re.findall(r"```text\n(.*?)```", text, re.DOTALL) if "Validating" in each]
    assert shows(shown, export[0])
    assert not shows(shown.replace("12 shapes", "11 shapes"), export[0])
    assert not shows(shown.replace("101 of 101", "100 of 101"), export[0])
    assert not shows("\n".join(shown.splitlines()[1:]) + "\n", export[0])


@pytest.fixture(scope="module")
def embeddings(export_directory):
    """Sentence embeddings (6, 384) by ONNX Runtime and the tokenizer of the exported directory."""
    from onnxruntime import InferenceSession
    from transformers import AutoTokenizer

    inputs = AutoTokenizer.from_pretrained(export_directory)(SENTENCES, padding=True, return_tensors="np")
    session = InferenceSession(export_directory / "model.onnx", providers=["CPUExecutionProvider"])
    (hidden,) = session.run(["last_hidden_state"], dict(inputs))
    return mean_pool(hidden, inputs["attention_mask"])


def test_similarities_are_those_of_pytorch(embeddings):
    """All pairwise similarities match the PyTorch model's to 1e-6; the most similar pair is the two eaters."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    inputs = AutoTokenizer.from_pretrained(minilm.directory())(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(minilm.directory())(**inputs).last_hidden_state
    reference = mean_pool(hidden.numpy(), inputs["attention_mask"].numpy())
    similarities = embeddings @ embeddings.T
    assert np.abs(similarities - reference @ reference.T).max() < 1e-6
    others = similarities - 2 * np.eye(len(SENTENCES))
    assert np.unravel_index(others.argmax(), others.shape) == (0, 1)


def test_a_second_opinion_agrees(embeddings):
    """sentence-transformers, independent of parity, gives the same embeddings to 1e-5."""
    command = [sys.executable, "-c", SECOND_OPINION, str(minilm.directory()), json.dumps(SENTENCES)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert np.abs(np.array(json.loads(done.stdout)) - embeddings).max() < 1e-5


def test_the_whole_directory_is_one_file(tmp_path):
    """`sentence-embedding` equals SentenceTransformer.encode to 1e-5, without any code after the session."""
    from onnxruntime import InferenceSession
    from transformers import AutoTokenizer

    assert main([f"--model={minilm.directory()}", "--feature=sentence-embedding", "--quiet", str(tmp_path)]) == 0
    inputs = AutoTokenizer.from_pretrained(tmp_path)(SENTENCES, padding=True, return_tensors="np")
    session = InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (embeddings,) = session.run(["sentence_embedding"], dict(inputs))
    command = [sys.executable, "-c", SECOND_OPINION, str(minilm.directory()), json.dumps(SENTENCES)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert np.abs(np.array(json.loads(done.stdout)) - embeddings).max() < 1e-5


def test_shuffled_embeddings_would_be_seen(embeddings):
    """The similarities distinguish sentences: in another order they differ by far more than the tolerance."""
    similarities = embeddings @ embeddings.T
    shuffled = np.roll(embeddings, 1, axis=0)
    assert np.abs(similarities - shuffled @ shuffled.T).max() > 0.1
