"""An architecture of another package gets matrix, page and gate from an installed parity."""

import functools
import json
import os
import subprocess
import sys
import sysconfig
from collections import Counter
from pathlib import Path

import pytest

from parity.fixtures.controls import wheels

ROOT = Path(__file__).parents[1]
PYPROJECT = """
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "toy-mixer"
version = "1.0"

[tool.setuptools]
packages = ["toy_mixer"]
"""
ENTRY_POINT = """
[project.entry-points."parity.architectures"]
toy-mixer = "toy_mixer.declared:ARCHITECTURE"
"""
MODELING = '''
"""A model that transformers does not know: every token sees the mean of those that are not padding."""

import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput


class ToyConfig(PretrainedConfig):
    model_type = "toy-mixer"

    def __init__(self, vocab_size=96, hidden_size=16, **kwargs):
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        super().__init__(**kwargs)


class ToyModel(PreTrainedModel):
    config_class = ToyConfig

    def __init__(self, config):
        super().__init__(config)
        self.words = torch.nn.Embedding(config.vocab_size, config.hidden_size)
        self.mix = torch.nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = torch.nn.LayerNorm(config.hidden_size)
        self.post_init()

    def forward(self, input_ids=None, attention_mask=None, return_dict=True):
        attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        words, seen = self.words(input_ids), attention_mask.unsqueeze(-1).to(self.words.weight.dtype)
        mean = (words * seen).sum(1, keepdim=True) / seen.sum(1, keepdim=True).clamp(min=1)
        return BaseModelOutput(last_hidden_state=self.norm(words + torch.tanh(self.mix(mean))))
'''
DECLARED = '''
"""The toy mixer, declared as any other architecture."""

from parity.architectures.declaration import EITHER_PADDING, Architecture, token_axes
from parity.onnx.config import OnnxConfig


class ToyOnnxConfig(OnnxConfig):
    """Token ids and attention mask."""

    @property
    def inputs(self):
        return token_axes(self.task, "input_ids", "attention_mask")


ARCHITECTURE = Architecture(
    model_type="toy-mixer",
    kind="encoder",
    onnx_config=ToyOnnxConfig,
    features=("default",),
    config="toy_mixer.modeling.ToyConfig",
    heads={"default": "toy_mixer.modeling.ToyModel"},
    tiny={"hidden_size": 16},
    preprocessor="distilbert",
    relations={"*": EITHER_PADDING},
)
'''

WAVES = '''
"""A model of raw sound that transformers does not know, and what is known not to work of it."""

import torch
from transformers import PretrainedConfig, PreTrainedModel, Wav2Vec2FeatureExtractor
from transformers.modeling_outputs import BaseModelOutput


class WavesConfig(PretrainedConfig):
    model_type = "toy-waves"

    def __init__(self, hidden_size=8, **kwargs):
        self.hidden_size = hidden_size
        super().__init__(**kwargs)


class WavesModel(PreTrainedModel):
    config_class = WavesConfig
    main_input_name = "input_values"

    def __init__(self, config):
        super().__init__(config)
        self.listen = torch.nn.Conv1d(1, config.hidden_size, 10, stride=5)
        self.norm = torch.nn.LayerNorm(config.hidden_size)
        self.post_init()

    def forward(self, input_values=None, return_dict=True):
        frames = self.listen(input_values.unsqueeze(1)).transpose(1, 2)
        return BaseModelOutput(last_hidden_state=self.norm(torch.tanh(frames)))


class BakedModel(WavesModel):
    """Takes the length of the sound for a number: a trace is right at its own length alone."""

    def forward(self, input_values=None, return_dict=True):
        hidden = super().forward(input_values).last_hidden_state
        return BaseModelOutput(last_hidden_state=hidden * (input_values.shape[1] / float(int(input_values.shape[1]))))


def extractor():
    """The preprocessor of raw sound."""
    return Wav2Vec2FeatureExtractor(feature_size=1, sampling_rate=22050)
'''
SOUND = '''
"""The model of sound, declared as any other architecture."""

from collections import OrderedDict

from parity.architectures import Architecture
from parity.onnx.config import OnnxConfig


class WavesOnnxConfig(OnnxConfig):
    """Raw sound; a frame takes ten samples."""

    axis_sizes = {"sound": range(10, 400)}

    @property
    def inputs(self):
        return OrderedDict(input_values={0: "batch", 1: "sound"})

    @property
    def outputs(self):
        return OrderedDict(last_hidden_state={0: "batch", 1: "frames"})

    def generate_dummy_inputs(self, preprocessor, batch_size=-1, seq_length=-1, is_pair=False, framework=None):
        sizes = {"batch_size": batch_size, "time_duration": 0.01}
        return super().generate_dummy_inputs(preprocessor, framework=framework, **sizes)


def sound(model, **more):
    return Architecture(
        model_type="toy-waves",
        kind="speech",
        onnx_config=WavesOnnxConfig,
        features=("default",),
        config="toy_mixer.waves.WavesConfig",
        heads={"default": f"toy_mixer.waves.{model}"},
        tiny={"hidden_size": 8},
        preprocessor="toy_mixer.waves.extractor",
        **more,
    )


ARCHITECTURE = sound("WavesModel")
'''
BAKED = '''
"""The one that takes the length for a number, with what is known of it."""

from parity.architectures import Deviation, TracedAxis
from toy_mixer.sound import sound

THREAD = "https://github.com/toy/waves/issues/1"
ARCHITECTURE = sound(
    "BakedModel",
    deviations=(
        Deviation(
            raises="ValueMismatch",
            reason="the length of the sound is a constant in the file",
            issue=THREAD,
            versions="transformers",
            checks=("drawn_sizes", "boundaries", "other_sizes", "verdict_of_the_commands"),
        ),
    ),
    traces=(TracedAxis(axis="sound", outcome="silently wrong", text="last_hidden_state", issue=THREAD),),
)
'''


@pytest.fixture(scope="session")
def wheel_files(tmp_path_factory):
    """Our wheel, and two of the other package: with an entry point, and without."""
    directory = tmp_path_factory.mktemp("wheels")
    ours = directory / "parity"
    ours.mkdir()
    wheels.copy_sources(ours)
    files = {"parity": wheels.build(ours, directory / "built")}
    for name, entry in {"declared": ENTRY_POINT, "named": ""}.items():
        outside = directory / name
        (outside / "toy_mixer").mkdir(parents=True)
        (outside / "pyproject.toml").write_text(PYPROJECT + entry)
        modules = {"__init__": "", "modeling": MODELING, "declared": DECLARED}
        modules |= {"waves": WAVES, "sound": SOUND, "baked": BAKED}
        for module, text in modules.items():
            (outside / "toy_mixer" / f"{module}.py").write_text(text)
        files[name] = wheels.build(outside, directory / f"built-{name}")
    return files


@pytest.fixture(scope="session")
def environment(wheel_files, tmp_path_factory):
    """A function that makes a virtual environment with both wheels, once for each kind of the other package.

    torch and other dependencies are not downloaded again: a .pth file names their directory here. It adds their
    modules, but not an editable installation of parity in the same place.
    """

    @functools.cache
    def create(outside):
        directory = tmp_path_factory.mktemp(outside)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory], check=True)
        pip = [sys.executable, "-m", "pip", "--python", directory / "bin" / "python"]
        install = [*pip, "install", "--quiet", "--no-deps", "--no-index"]
        subprocess.run([*install, wheel_files["parity"], wheel_files[outside]], check=True)
        # Only now: earlier, pip would take the parity installed here for the one to install there.
        (site,) = directory.glob("lib/python*/site-packages")
        (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
        return directory

    return create


@pytest.fixture
def run(environment, tmp_path):
    """A function that runs `python -m …` of an environment in an empty directory."""
    variables = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHONPATH", "COV"))
    }

    def run_module(outside, *arguments):
        command = [environment(outside) / "bin" / "python", "-m", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)

    return run_module


def test_an_architecture_that_no_auto_class_knows_gets_matrix_page_and_gate(run, tmp_path):
    """`--architecture=package.module`: its cells pass, page and gate work, and a missing cell is reported.

    A part of it starts no baseline, and removes nothing from one.
    """
    listing = run("named", "parity.cli", "matrix", "--json")
    assert "toy-mixer" not in listing.stdout, "the control: without being named it is not there"
    selection = ("-n", "2", "-k", "onnx11 or onnx17 or torchscript", "-p", "no:cacheprovider")
    arguments = ("pytest", "--pyargs", "parity.architectures", "--architecture=toy_mixer.declared", *selection)
    process = run("named", *arguments)
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-2000:]
    lines = [json.loads(line) for line in (tmp_path / "reports/out/records.jsonl").read_text().splitlines()]
    assert {line["architecture"] for line in lines[1:]} == {"toy-mixer"}
    assert {line["status"] for line in lines[1:]} == {"passed"}
    assert len(lines) > 20
    assert run("named", "parity.reports").returncode == 0
    assert "toy-mixer" in (tmp_path / "reports/out/report.html").read_text()
    fresh = run("named", "parity.reports", "--check")
    assert fresh.returncode == 1
    assert "no baseline yet" in fresh.stdout
    part = run("named", "parity.reports", "--accept")
    assert part.returncode == 2
    assert "are of a part of the matrix" in part.stderr
    # Pretend that it has no other cells: running all takes minutes.
    del lines[0]["selection"]
    (tmp_path / "reports/out/records.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert run("named", "parity.reports", "--accept").returncode == 0
    assert run("named", "parity.reports", "--check").returncode == 0
    assert run("named", *arguments, "-k", "test_contract and onnx17").returncode == 0
    part = run("named", "parity.reports", "--check")
    assert part.returncode == 0, part.stdout
    assert "left them out: " in part.stdout
    others = [line for line in lines if line.get("id") != "toy-mixer-default-onnx11"]
    (tmp_path / "reports/out/records.jsonl").write_text("\n".join(map(json.dumps, others)))
    lost = run("named", "parity.reports", "--check")
    assert lost.returncode == 1
    assert "disappeared" in lost.stdout
    assert "toy-mixer-default-onnx11" in lost.stdout


def test_records_and_page_are_where_pytest_was_started(run, tmp_path_factory, tmp_path):
    """Whatever rootdir pytest chooses."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    options = (f"--rootdir={elsewhere}", "-k", "test_attention_on_record", "-p", "no:cacheprovider")
    ran = run("named", "pytest", "--pyargs", "parity.architectures", "--architecture=toy_mixer.declared", *options)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-2000:]
    assert f"rootdir: {elsewhere}" in ran.stdout
    assert run("named", "parity.reports").returncode == 0
    assert {path.name for path in (tmp_path / "reports/out").iterdir()} >= {"records.jsonl", "report.html", "report.md"}
    assert not list(elsewhere.iterdir())


def test_an_entry_point_puts_it_in_the_matrix(run, environment):
    """Installing it is enough; the wheel has the page's templates too."""
    found = json.loads(run("declared", "parity.cli", "matrix", "--json").stdout)["cells"]
    assert any(cell["architecture"] == "toy-mixer" for cell in found)
    assert any(cell["architecture"] == "bert" for cell in found)
    chosen = ("--architecture=toy-mixer", "-k", "onnx17", "--collect-only", "-q")
    listed = run("declared", "pytest", "--pyargs", "parity.architectures", *chosen)
    assert "test_traced_sizes[toy-mixer-default-onnx17]" in listed.stdout
    assert "bert" not in listed.stdout
    (package,) = environment("declared").glob("lib/python*/site-packages/parity/reports/pages/templates")
    assert {path.name for path in package.iterdir()} == {
        path.name for path in (ROOT / "reports/pages/templates").iterdir()
    }


@pytest.mark.parametrize(("module", "failing"), [("sound", 0), ("baked", 4)])
def test_raw_sound_and_what_is_known_not_to_work(run, tmp_path, module, failing):
    """An axis of sound is tested at other lengths; a deviation and a declared axis of a trace must hold."""
    chosen = ("-n", "2", "-k", "onnx17 or torchscript", "-p", "no:cacheprovider", "-q")
    result = run("named", "pytest", "--pyargs", "parity.architectures", f"--architecture=toy_mixer.{module}", *chosen)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-2000:]
    lines = [json.loads(line) for line in (tmp_path / "reports/out/records.jsonl").read_text().splitlines()[1:]]
    statuses = Counter(line["status"] for line in lines)
    assert statuses["xfailed"] == failing
    assert statuses["passed"] > 15
    assert set(statuses) <= {"passed", "skipped", "xfailed"}
    verdicts = {line["check"]: line["status"] for line in lines}
    assert verdicts["boundaries"] == verdicts["drawn_sizes"] == ("xfailed" if failing else "passed")
    assert verdicts["trace_verdicts"] == "passed"


def test_what_is_no_architecture_is_told(run):
    """An unknown name, a module without a declaration: one sentence, and nothing runs."""
    for name, message in {"no_such.module": "cannot be imported", "toy_mixer": "has no ARCHITECTURE"}.items():
        process = run("named", "pytest", "--pyargs", "parity.architectures", f"--architecture={name}")
        assert process.returncode == 4
        assert message in process.stderr
        assert "Traceback" not in process.stderr


def test_other_runs_of_pytest_are_left_alone(run, tmp_path):
    """A run of other tests loads none of parity's plug-ins."""
    suite = "import sys\n\ndef test_alone():\n    assert 'parity.fixtures.plugin' not in sys.modules\n"
    (tmp_path / "test_else.py").write_text(suite)
    ran = run("named", "pytest", "-q", "-p", "no:cacheprovider", "test_else.py")
    assert ran.returncode == 0, ran.stdout
    assert not (tmp_path / "reports").exists()
