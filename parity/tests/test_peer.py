"""Files from optimum-onnx, which it has validated: right ones pass, and what its validation lets through is told."""

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
    # What optimum-onnx and the libraries that it imports say of themselves.
    pytest.mark.filterwarnings("ignore"),
]


def bert(baked):
    """A BertModel; `baked`, it also multiplies and divides by its length, the divisor as a Python number."""
    from transformers import BertModel

    class Baked(BertModel):
        def forward(self, input_ids=None, attention_mask=None, token_type_ids=None, **others):
            found = super().forward(input_ids, attention_mask, token_type_ids, **others)
            found.last_hidden_state = found.last_hidden_state * input_ids.shape[1] / float(int(input_ids.shape[1]))
            return found

    Baked.__module__ = BertModel.__module__  # where the peer reads off the library that a model comes from
    return Baked if baked else BertModel


def export_and_check(directory, baked):
    """What optimum-onnx exports and validates of a checkpoint, judged: exit status, log, errors."""
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
    """The control: an export that is right at every size is exit status 0."""
    status, log, err = export_and_check(tmp_path, baked=False)
    assert (status, err) == (0, "")
    assert log.splitlines()[-1].startswith("All good")


def test_a_baked_sequence_that_the_peer_passes_is_rejected_by_name(tmp_path):
    """The peer has compared at the one length that is right; here the file is rejected, and the axis is named."""
    status, log, err = export_and_check(tmp_path, baked=True)
    assert status == 1
    assert err.splitlines()[0] == (
        "error: axis sequence: the file is right where sequence is 16 and wrong at every other size tried; the size"
        " has become a constant, though the file declares the axis dynamic"
    )
    assert "last_hidden_state: error ratio" in err
    assert "All good" not in log
