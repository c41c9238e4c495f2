"""Directories of sentence-transformers: exported completely, equal to the package's result, refused if unknown."""

import functools
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from parity import check, torchscript
from parity.environment import version_of
from parity.errors import CheckpointError
from parity.fixtures.checkpoints import save_checkpoint
from parity.fixtures.controls import commands
from parity.judge.contract import read
from parity.onnx.__main__ import main
from parity.onnx.features import FeaturesManager
from parity.sessions import OnnxSession
from parity.torchscript.__main__ import main as torchscript_main

run = functools.partial(commands.run, command=main)
WHOLE = "--feature=sentence-embedding"
TEXTS = ["w1 w2 w3 w4", "w7", "w5 w1 w9"]
MODES = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")

ENCODE = """
import json, sys, warnings
warnings.simplefilter("ignore")
from sentence_transformers import SentenceTransformer
texts, *directories = json.loads(sys.argv[1])
print(json.dumps([SentenceTransformer(each, device="cpu").encode(texts).tolist() for each in directories]))
"""


@pytest.fixture(scope="module")
def transformer(tmp_path_factory):
    """The directory of a tiny BERT, which tests must not change."""
    directory = tmp_path_factory.mktemp("transformer")
    save_checkpoint(directory, "bert")
    return directory


def write_modules(directory, *modes, dense=None, normalize=True, place=""):
    """Write modules.json with a pooling of these modes and, if `dense` names an activation, a dense layer."""
    import torch

    kinds = {"Transformer": place, "Pooling": "1_Pooling"}
    pooling = {"word_embedding_dimension": 32, **{f"pooling_mode_{mode}": mode in modes for mode in MODES}}
    (directory / "1_Pooling").mkdir(parents=True)
    (directory / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    if dense:
        kinds["Dense"] = "2_Dense"
        layer = torch.nn.Linear(32 * len(modes), 5)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            layer.reset_parameters()
        (directory / "2_Dense").mkdir()
        settings = {"in_features": 32 * len(modes), "out_features": 5, "bias": True, "activation_function": dense}
        (directory / "2_Dense" / "config.json").write_text(json.dumps(settings))
        weights = {f"linear.{name}": value for name, value in layer.state_dict().items()}
        torch.save(weights, directory / "2_Dense" / "pytorch_model.bin")
    if normalize:
        kinds["Normalize"] = "3_Normalize"
        (directory / "3_Normalize").mkdir()
    entries = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (kind, path) in enumerate(kinds.items())
    ]
    (directory / "modules.json").write_text(json.dumps(entries))
    return directory


@pytest.fixture
def sentences(transformer, tmp_path):
    """A function: modes, options of `write_modules` → a copy of the tiny BERT with these modules."""

    def make(*modes, name="sentences", **options):
        return write_modules(shutil.copytree(transformer, tmp_path / name), *modes, **options)

    return make


def model_of(directory):
    """The model to export, and the inputs of `TEXTS`."""
    from parity.checkpoint import Checkpoint

    checkpoint = Checkpoint(str(directory))
    feature = checkpoint.feature("sentence-embedding")
    inputs = checkpoint.inputs(checkpoint.onnx_config(feature))
    return checkpoint.load(feature, inputs), checkpoint.preprocessor(TEXTS, padding=True, return_tensors="pt")


def embed(directory):
    import torch

    model, inputs = model_of(directory)
    with torch.no_grad():
        return model(**inputs)["sentence_embedding"].numpy()


@pytest.mark.skipif(version_of("sentence-transformers") is None, reason="sentence-transformers is not installed")
def test_every_module_computes_what_the_package_computes(sentences):
    """Each kind of pooling, two together, dense layers, to 1e-5; no two kinds agree."""
    identity, tanh = "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Tanh"
    directories = [sentences(mode, name=mode, normalize=False) for mode in MODES]
    directories += [
        sentences("mean_tokens", "max_tokens", name="two"),
        sentences("mean_tokens", name="dense", dense=tanh),
        sentences("cls_token", name="linear", dense=identity, normalize=False),
    ]
    argument = json.dumps([TEXTS, *map(str, directories)])
    done = subprocess.run([sys.executable, "-c", ENCODE, argument], capture_output=True, text=True, check=True)
    references = [np.array(each) for each in json.loads(done.stdout)]
    answers = [embed(directory) for directory in directories]
    for answer, reference in zip(answers, references, strict=True):
        assert answer.shape == reference.shape
        assert np.abs(answer - reference).max() < 1e-5
    alike = [np.abs(a - b).max() < 1e-2 for a in answers[: len(MODES)] for b in answers[: len(MODES)]]
    assert sum(alike) == len(MODES)


def test_left_padding_changes_no_embedding(sentences):
    """The first token, and the weights of weightedmean, count from the beginning of the text."""
    import torch

    model, inputs = model_of(sentences(*MODES, normalize=False))
    longer = {name: torch.nn.functional.pad(tensor, (3, 0)) for name, tensor in inputs.items()}
    # BERT's positions begin at the row's start, so pass the tokens' own embeddings.
    with torch.no_grad():
        tokens = model(**inputs)["token_embeddings"]
        moved = torch.nn.functional.pad(tokens, (0, 0, 3, 0), value=9.0)
        pooling = model.rest[0]
        here, there = pooling(tokens, inputs["attention_mask"]), pooling(moved, longer["attention_mask"])
    assert (here - there).abs().max() < 1e-6


def test_the_whole_directory_is_exported_and_judged(sentences, tmp_path):
    """By command to ONNX and TorchScript; the check reads the feature from the file, and detects another pooling."""
    directory = sentences("mean_tokens", dense="torch.nn.modules.activation.Tanh")
    from parity.checkpoint import Checkpoint

    status, _, err = run("-m", directory, "--task=sentence-similarity", tmp_path / "out")
    assert (status, err) == (0, "")
    path = tmp_path / "out" / "model.onnx"
    _, inputs = model_of(directory)
    answer = OnnxSession(path).run({name: tensor.numpy() for name, tensor in inputs.items()})
    assert list(answer) == ["token_embeddings", "sentence_embedding"]
    assert np.abs(answer["sentence_embedding"] - embed(directory)).max() < 1e-5
    status, log, err = run(directory, path, command=check.main)
    assert (status, err) == (0, "")
    assert "feature sentence-embedding" in log.splitlines()[0]
    other = sentences("cls_token", name="other", dense="torch.nn.modules.activation.Tanh")
    facts = [Checkpoint(str(each)).provenance("sentence-embedding") for each in (directory, other)]
    assert facts[0]["checkpoint"] == facts[1]["checkpoint"] == read(path).metadata["checkpoint"]
    assert facts[0]["modules"] == read(path).metadata["modules"] != facts[1]["modules"]
    status, _, err = run(other, path, command=check.main)
    assert status == 1
    assert "sentence_embedding" in err
    assert "token_embeddings" not in err
    assert run("-m", directory, WHOLE, "--quiet", tmp_path / "model.pt", command=torchscript_main)[0] == 0
    assert list(torchscript.load(tmp_path / "model.pt").outputs) == ["token_embeddings", "sentence_embedding"]


def test_default_says_that_pooling_is_not_in_the_file(sentences, tmp_path):
    """One line of the log names the feature that includes it; the file is that of the transformer."""
    status, log, err = run("-m", sentences("mean_tokens"), tmp_path / "out")
    assert (status, err) == (0, "")
    assert log.splitlines()[0] == (
        "Pooling, Normalize of modules.json: not exported for feature default; --feature sentence-embedding exports"
        " the whole directory"
    )


def test_the_transformer_in_a_directory_below(transformer, tmp_path):
    """An older layout: the message names the directory, and with --subfolder the modules around it are used."""
    directory = write_modules(tmp_path / "old", "mean_tokens", place="0_BERT")
    shutil.copytree(transformer, directory / "0_BERT")
    status, _, err = run("-m", directory, WHOLE, tmp_path / "out")
    assert status == 1
    assert "0_BERT holds a checkpoint: give that directory, or --subfolder" in err
    plain = write_modules(shutil.copytree(transformer, tmp_path / "plain"), "mean_tokens")
    assert np.array_equal(embed(directory / "0_BERT"), embed(plain))


def test_it_is_a_property_of_the_directory(transformer, tmp_path):
    """Without modules.json exit status is 2; no architecture has the feature."""
    status, _, err = run("-m", transformer, WHOLE, tmp_path)
    assert status == 2
    assert "has no modules.json; it is for directories of sentence-transformers" in err
    assert "sentence-embedding" not in FeaturesManager.AVAILABLE_FEATURES


def spoil_kind(directory):
    path = directory / "modules.json"
    path.write_text(path.read_text().replace("models.Normalize", "models.CNN"))


def spoil_list(directory):
    (directory / "modules.json").write_text('{"idx": 0}')


def change_pooling(**items):
    def spoil(directory):
        path = directory / "1_Pooling" / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **items}))

    return spoil


def change_dense(**items):
    def spoil(directory):
        path = directory / "2_Dense" / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **items}))

    return spoil


def remove(name):
    return lambda directory: (directory / name).unlink()


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (spoil_kind, "lists Transformer, Pooling, Dense, CNN; should be a Transformer, then modules of Pooling, Norm"),
        (spoil_list, r"modules\.json: is an object of 1 entries, should be a list"),
        (change_pooling(pooling_mode=3), r"config\.json\.pooling_mode: is 3, should be a printable text"),
        (
            change_dense(in_features=10**12),
            r"config\.json\.in_features: is 1000000000000, should be a whole",
        ),
        (change_pooling(pooling_mode="median"), "1_Pooling: its config.json asks for median, should be of cls, max"),
        (change_pooling(pooling_mode_median=True), "1_Pooling: its config.json has pooling_mode_median, which parity"),
        (change_dense(use_residual=True), "2_Dense: its config.json has use_residual, which parity does not know"),
        (change_dense(activation_function="os.system"), "its activation_function is os.system, should be a class of"),
        (remove("1_Pooling/config.json"), "1_Pooling: has no config.json, which modules.json needs"),
        (remove("2_Dense/pytorch_model.bin"), "2_Dense: has no model.safetensors and no pytorch_model.bin"),
    ],
)
def test_what_is_not_known_is_refused(sentences, spoil, text):
    """An unsupported module, setting or file gives one sentence, and no file without it."""
    directory = sentences("mean_tokens", dense="torch.nn.modules.activation.Tanh")
    spoil(directory)
    with pytest.raises(CheckpointError, match=text):
        model_of(directory)
