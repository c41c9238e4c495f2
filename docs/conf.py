"""Sphinx: the pages under docs/, built offline by `tox -e docs`; `docs/generated.py` makes the tables."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from sphinx.ext.autodoc.mock import mock

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from parity import __version__, environment  # noqa: E402

# The pages are about these versions, whatever is installed where they are built.
PINS = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
environment.version_of = PINS.get

project = "Parity"
author = "the authors of Parity"
version = release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "generated"]
exclude_patterns = ["_build"]
# A reference to a name that does not exist fails; types in signatures and exceptions are no references.
nitpicky = True
nitpick_ignore_regex = [("py:(class|obj|exc)", ".*")]
html_theme = "furo"
html_title = f"Parity {__version__}"
html_copy_source = False

# Links between pages, as a forge shows them too: `[the gate](gate.md#the-baseline)`.
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "deflist"]

# The code is read without any of these.
autodoc_mock_imports = [
    *("torch", "transformers", "onnx", "onnxruntime", "ml_dtypes", "PIL", "safetensors", "tokenizers"),
    *("huggingface_hub", "peft", "hypothesis"),
]
# Lazy names are looked up here: later the stand-ins are gone, and autodoc leaves out a name that cannot be imported.
PACKAGES = ("parity.onnx", "parity.torchscript", "parity.neuron", "parity.architectures")
with mock(autodoc_mock_imports):
    for package in map(importlib.import_module, PACKAGES):
        for name in package.__all__:
            getattr(package, name)
autodoc_default_options = {"members": True, "imported-members": True, "member-order": "groupwise"}
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
# A word in single backquotes in a docstring is code.
default_role = "code"
# Docstrings name values by what they are, not by their types.
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_param = False
