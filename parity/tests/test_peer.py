"""Files that optimum-onnx has exported and validated: right files pass, and a fault that it missed is reported."""

import contextlib
import io

import pytest

from parity.check import main
from parity.environment import version_of
from parity.fixtures.checkpoints import save_checkpoint

pytestmark = [
    pytest.mark.skipif(
        version_of("optimum-onnx") is None, reason="optimum-onnx is not installed here: tox -e peers has it"
    ),
    # Warnings of optimum-onnx and the libraries that it imports.
    pytest.mark.filterwarnings("ignore"),
]


def bert(baked):
    """A BertModel; if `baked`, it multiplies by its length and divides by it as a Python number."""
    from transformers import BertModel

    class Baked(BertModel):
        def forward(self, input_ids=None, attention_mask=None, token_type_ids=None, **others):
            found = super().forward(input_ids, attention_mask, token_type_ids, **others)
            found.last_hidden_state = found.last_hidden_state * input_ids.shape[1] / float(int(input_ids.shape[1]))
            return found

    Baked.__module__ = BertModel.__module__  # the peer infers the library of a model from its module
    return Baked if baked else BertModel


def export_and_check(directory, baked):
    """Judge optimum-onnx's validated export of a checkpoint; returns exit status, log, errors."""
    from optimum.exporters.onnx import onnx_export_from_model

    save_checkpoint(directory, "bert")
    model = bert(baked).from_pretrained(directory)
    onnx_export_from_model(
        model, directory / "peer", task="feature-extraction", library_name="transformers", do_validation=True
    )
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([str(directory), str(directory / "peer" / "model.onnx")])
    return status, out.getvalue(), err.getvalue()


def test_a_right_file_of_the_peer_passes(tmp_path):
    """The control: an export that is right at every size gives exit status 0."""
    status, log, err = export_and_check(tmp_path, baked=False)
    assert (status, err) == (0, "")
    assert log.splitlines()[-1].startswith("All good")


def test_a_baked_sequence_that_the_peer_passes_is_rejected_by_name(tmp_path):
    """The peer compares at the one length that is right; we reject the file and name the axis."""
    status, log, err = export_and_check(tmp_path, baked=True)
    assert status == 1
    assert err.splitlines()[0] == (
        "error: axis sequence: the file is right if sequence is 16 and wrong at every other size tried; the size"
        " has become a constant, though the file declares the axis dynamic"
    )
    assert "last_hidden_state: error ratio" in err
    assert "All good" not in log
