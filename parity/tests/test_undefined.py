"""Values of tokens that attend to nothing must only be finite; all other values are compared."""

from types import SimpleNamespace

import numpy as np
import pytest

from parity.errors import ValueMismatch
from parity.fixtures import subjects
from parity.fixtures.checkpoints import tiny_model
from parity.judge import undefined
from parity.judge.findings import failures
from parity.sessions import OnnxSession

TEXT = {0: "batch", 1: "sequence"}
MASK = np.array([[1, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0]])


def undefined_places(mask, axes, shape, output, **options):
    name = options.pop("name", "attention_mask")
    return undefined.places({name: mask}, {name: axes}, {"o": np.zeros(shape)}, {"o": output}, **options)["o"]


def test_masked_tokens_and_fully_masked_rows():
    """A text's output is undefined at masked tokens; an output without tokens, in fully masked rows."""
    assert np.array_equal(undefined_places(MASK, TEXT, (3, 4, 2), TEXT)[..., 0], MASK == 0)
    assert undefined_places(MASK, TEXT, (3, 2), {0: "batch"}).tolist() == [[False] * 2, [False] * 2, [True] * 2]


def test_past_and_sequence():
    """With a past the mask ends with the sequence's; a cache has the length of both."""
    axes = {0: "batch", 1: "past_sequence + sequence"}
    assert np.array_equal(undefined_places(MASK, axes, (3, 1, 5), TEXT)[:, 0, 0], [False, False, True])
    cache = undefined_places(MASK, axes, (3, 2, 4, 5), {0: "batch", 2: "past_sequence + sequence"})
    assert np.array_equal(cache[:, 0, :, 0], MASK == 0)


def test_each_side_has_its_mask():
    """The encoder's mask does not affect the decoder's tokens, unless a row is fully masked."""
    axes = {0: "batch", 1: "encoder_sequence"}
    places = undefined_places(MASK, axes, (3, 7, 2), {0: "batch", 1: "decoder_sequence"})
    assert places.any(axis=(1, 2)).tolist() == [False, False, True]
    own = undefined_places(MASK, axes, (3, 7, 2), {0: "batch", 1: "decoder_sequence"}, name="decoder_attention_mask")
    assert np.array_equal(own, places)


def test_a_text_of_one_length_has_no_axis_for_it():
    """If the length has no name (block-sparse BigBird), only fully masked rows are left out."""
    found = undefined_places(MASK, {0: "batch"}, (3, 4, 2), {0: "batch"})
    assert found.all(axis=(1, 2)).tolist() == found.any(axis=(1, 2)).tolist() == [False, False, True]


def test_choices_are_rows():
    """In multiple choice one choice can be fully masked, others not."""
    axes = {0: "batch", 1: "choice", 2: "sequence"}
    assert undefined_places(MASK[None], axes, (1, 3), {0: "batch", 1: "choice"}).tolist() == [[False, False, True]]


def test_pooled_token():
    """An output computed from one token is undefined if that token is masked."""
    assert undefined_places(MASK, TEXT, (3, 2), {0: "batch"}, pooled={"o": 0})[:, 0].tolist() == [False, True, True]


def test_the_mask_of_global_attention_is_none():
    """Longformer's second mask marks tokens with global attention; its zeros are ordinary tokens."""
    assert not undefined_places(MASK, TEXT, (3, 4, 2), TEXT, name="global_attention_mask").any()


def test_images_have_no_text():
    """A mask of pixels leaves out fully masked images, but no part of others."""
    pixels = np.stack([np.zeros((4, 4)), np.eye(4)])
    axes = {0: "batch", 1: "height", 2: "width"}
    assert undefined_places(pixels, axes, (2, 3), {0: "batch"}, name="pixel_mask").tolist() == [[True] * 3, [False] * 3]


def test_images_with_a_batch_of_their_own_are_rows():
    """If texts and images have separate batches, a masked image leaves out only its own row."""
    pixels, axes = np.stack([np.zeros((4, 4)), np.eye(4)]), {0: "image_batch", 1: "height", 2: "width"}
    places = undefined_places(pixels, axes, (2, 3), {0: "image_batch"}, name="pixel_mask")
    assert places.tolist() == [[True] * 3, [False] * 3]


UNLIKE = [("gpt2", "causal-lm"), ("bart", "seq2seq-lm"), ("m2m-100", "default-with-past")]


@pytest.fixture(scope="module", params=UNLIKE, ids="-".join)
def unlike(request, tmp_path_factory):
    """An eager file's session, and a pool with answers of a model with sdpa."""
    name, feature = request.param
    subject = subjects.subject(name, feature)
    path = subjects.artifact(subject, 17, tmp_path_factory.mktemp(name) / "model.onnx")
    assert tiny_model(name, feature, attention="sdpa").config._attn_implementation == "sdpa"
    return subject, OnnxSession(path), subjects.pool(name, feature, "other", "sdpa")


def judge(unlike, spoil=None, **options):
    """The verdict on the file; `spoil` gets inputs and answers and changes the answers in place."""
    subject, session, pool = unlike

    def run(inputs):
        answers = {name: array.copy() for name, array in session.run(inputs).items()}
        if spoil:
            spoil(inputs, answers)
        return answers

    from parity.validation import Criteria, compare

    return compare(run, subject.onnx_config, pool, Criteria(**options))


def output_of(subject):
    """The first output, and the mask of its tokens."""
    name = next(iter(subject.onnx_config.outputs))
    side = "decoder_" if "decoder_input_ids" in subject.onnx_config.inputs else ""
    return name, f"{side}attention_mask"


def test_an_eager_file_of_an_sdpa_model_passes(unlike):
    """Compared at defined values it passes."""
    verdict = judge(unlike, same_attention=False)
    assert verdict.message() == ""
    assert max(verdict.ratios().values()) < 4
    assert 0 < verdict.masked < verdict.values / 3


@pytest.mark.parametrize("unlike", UNLIKE[:1], ids="-".join, indirect=True)
def test_compared_everywhere_it_fails(unlike):
    """For GPT-2's rows that see nothing, sdpa differs in every release: there is much to leave out."""
    assert {row.check for row in judge(unlike).failures} >= {"ratio"}


@pytest.mark.parametrize("place", ["first after the padding", "last"])
def test_a_fault_at_a_real_token_fails(unlike, place):
    """One wrong value at one real token of a padded row fails as a value and by the ratio."""
    subject, _, _ = unlike
    name, mask = output_of(subject)

    def spoil(inputs, answers):
        real = inputs[mask][-1][-answers[name].shape[1] :]
        if real.all() or not real.any():
            return
        index = int(real.argmax()) if "first" in place else len(real) - 1 - int(real[::-1].argmax())
        answers[name][-1, index, 0] += 0.01

    found = judge(unlike, spoil, same_attention=False)
    assert {row.check for row in found.failures} >= {"ratio", "values"}
    with pytest.raises(ValueMismatch):
        judge(unlike, spoil, same_attention=False, atol=1e-3).raise_on_failure()


def test_claims_are_judged_in_the_noise_of_what_is_defined(unlike):
    """The claims get all answers; their unit is the noise of defined values, which differs."""
    pools = []
    claims = SimpleNamespace(judge=lambda run, pool: pools.append(pool) or [])
    assert judge(unlike, same_attention=False, claims=claims).passed
    (whole,), (_, _, pool) = pools, unlike
    assert whole.answers == pool.answers
    assert whole.noise.keys() == pool.noise.keys()
    assert whole.noise != pool.noise


def test_what_is_masked_has_to_be_finite(unlike):
    """A NaN at a masked token fails, because in a cache it would spread."""
    subject, _, _ = unlike
    name, mask = output_of(subject)

    def spoil(inputs, answers):
        masked = inputs[mask][-1][-answers[name].shape[1] :] == 0
        answers[name][-1, masked, 0] = np.nan

    (row, *_) = failures(judge(unlike, spoil, same_attention=False).findings)
    assert row.check == "nonfinite"
    assert "values at masked positions are not finite" in row.message
