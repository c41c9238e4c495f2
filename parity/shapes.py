"""The shapes at which a file is compared: that of the export, and others along every axis."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from parity import axes
from parity.configs.lengths import USUAL_ROW, Lengths, lengths_to_try
from parity.padding import WAYS
from parity.samples import LONG_SOUND, Sample, SampleSource

# Batch and length of the first sample that a source generates if its axes cannot be resized.
_FIRST = (1, 9)
# The most values of a sample's logits: with their float64 twins, larger ones need more memory than small models do.
LARGEST_ANSWER = 1 << 25
# The most rows of a batch whose rows have long sounds: of the first sample, of those of usual sizes, of the others.
_FIRST_SOUNDS, _USUAL_SOUNDS, _SOUNDS = 2, 1, 4
# The number of tokens after a long past.
_AFTER_PAST = 3


def choose_samples(
    source: SampleSource, *, longest: int | None = None, resize: bool = True, lengths: Lengths | None = None
) -> list[Sample]:
    """The export's own shape with the dummy values first, then varied values at other shapes, then extreme ones.

    Args:
        source: of the samples.
        longest: the longest sequence that the model takes.
        resize: also use shapes that the preprocessor cannot make (sequence 1, lengths that differ from each other);
            needs axis names that do not contradict each other.
        lengths: the lengths of texts to try besides the usual ones; None means those of `lengths_to_try`.
    """
    samples = [_first_sample(source)]
    if resize and source.resizable:
        if lengths is None:
            lengths = lengths_to_try(source.model_config, longest)
        sizes = default_sizes(source.axes, longest, source.axis_sizes, source.masked)
        further = extreme_sizes(source.axes, longest, lengths.tokens, source.axis_sizes)
        samples += [
            source.resize(fit_batch(source, each, sounds=_USUAL_SOUNDS), padding=padding, seed=seed)
            for seed, (each, padding) in enumerate(sizes, 1)
        ]
        samples += [
            source.resize(fit_batch(source, each), padding=padding if source.masked else "", seed=seed, extreme=True)
            for seed, (each, padding) in enumerate(further, len(samples))
        ]
        return samples
    limit = longest or 10**6
    rows = [
        (*_FIRST, ""),
        (3, 9, ""),
        (2, 8, ""),
        (3, 11, "left"),
        (3, 16, "right"),
        (1, 5, ""),
        (2, 31, ""),
        (2, 7, "left"),
    ]
    samples += [
        _sample_within(limit, source, batch, min(length, limit), padding, seed)
        for seed, (batch, length, padding) in enumerate(rows, start=1)
    ]
    return samples


def fit_batch(source: SampleSource, sizes: Mapping[str, int], *, sounds: int = _SOUNDS) -> dict[str, int]:
    """The sizes, with a batch so small that the judge needs no more memory than for other models of that size.

    The batch is cut if the logits over a vocabulary have more than `LARGEST_ANSWER` values, as in models whose texts
    all have one, long, length; and if each row has a long sound.

    Args:
        source: of the samples.
        sizes: by axis.
        sounds: the most rows if each has a long sound.
    """
    # Two at least: a file that is right for one row alone has to fail.
    rows = max(2, LARGEST_ANSWER // max(1, source.logits_of_row(sizes)))
    if source.sound_of_row > LONG_SOUND:
        rows = min(rows, sounds)
    return {name: min(size, rows) if name in axes.BATCHES else size for name, size in sizes.items()}


def _first_sample(source: SampleSource) -> Sample:
    sample = source.generate()
    sizes = fit_batch(source, sample.sizes, sounds=_FIRST_SOUNDS)
    changed = [size for name, size in sizes.items() if size != sample.sizes[name]]
    return source.generate(batch_size=changed[0]) if changed else sample


def _sample_within(limit: int, source: SampleSource, batch: int, length: int, padding: str, seed: int) -> Sample:
    """A generated sample of that length, or of the longest shorter length whose past fits within the limit."""
    sample = source.generate(batch_size=batch, seq_length=length, padding=padding, seed=seed)
    while sample.tokens > limit and length > 1:
        length = min(length - 1, length * limit // sample.tokens)
        sample = source.generate(batch_size=batch, seq_length=length, padding=padding, seed=seed)
    return sample


def similar_sample(source: SampleSource, sample: Sample, longest: int | None, seed: int) -> Sample:
    """A sample as large as another, with other values.

    Args:
        source: of the samples.
        sample: an unpadded sample of `choose_samples`.
        longest: the longest sequence that the model takes, in tokens.
        seed: of the values.
    """
    if source.resizable:
        return source.resize(sample.sizes, seed=seed)
    limit = longest or 10**6
    return _sample_within(limit, source, _FIRST[0], min(_FIRST[1], limit), "", seed)


def nearest(size: int, allowed: range | None) -> int:
    """The size itself, or the nearest size that is allowed."""
    return size if allowed is None else min(allowed, key=lambda fitting: abs(fitting - size))


def default_sizes(
    export_sizes: Mapping[str, int],
    longest: int | None = None,
    allowed: Mapping[str, range] | None = None,
    masked: bool = True,
) -> list[tuple[dict[str, int], str]]:
    """At least eight (sizes, padding) to validate at: batch 1 and 3, sequence 1, longer, padded left and right.

    Args:
        export_sizes: the named axes of the inputs with their sizes at the export; images become larger or smaller by
            some pixels, sounds and axes of other names are cut or repeated, the rest does not depend on it.
        longest: the longest sequence that the model takes, in tokens.
        allowed: axis → valid sizes, if these are not all sizes from 1 up; an axis with an unknown name keeps its size
            without them.
        masked: whether rows can be padded: the inputs have a mask, of tokens or of pixels.
    """
    limit = longest or 10**6
    allowed = allowed or {}
    has_past = any(name in export_sizes for name in axes.PASTS)
    rows = [
        (1, 7, 11, 2, 5, 3, 0, 0.5, ""),
        (3, 1, 1, 1, 1, 1, 0, 1, ""),
        (1, 1, 5, 3, 0, 2, 32, 2, ""),
        (3, 9, 4, 9, 3, 3, 0, 1, "left"),
        (3, 12, 13, 6, 1, 4, 13, 1.3, "right"),
        (2, 31, 29, 17, 7, 2, -7, 0.7, ""),
        (3, 16, 8, 8, 0, 1, 0, 1, "right"),
        (1, 13, 6, 3, 2, 5, 5, 1.1, "left"),
    ]
    others = [name for name in export_sizes if name == axes.SOUND or (name in allowed and name not in axes.KNOWN)]
    choices = []
    for batch, sequence, encoder, decoder, past, choice, pixels, factor, padding in rows:
        past = min(past, max(0, limit - 2))
        room = limit - past if has_past else limit
        sizes = {
            "batch": batch,
            "sequence": min(sequence, room),
            "encoder_sequence": min(encoder, limit),
            "decoder_sequence": min(decoder, room),
            "past_sequence": past,
            "past_decoder_sequence": past,
            "choice": choice,
            "image_batch": choice,
            "height": max(1, export_sizes.get("height", 0) + pixels),
            "width": max(1, export_sizes.get("width", 0) + 2 * pixels),
            **{name: round(factor * export_sizes[name]) for name in others},
        }
        fitting = {name: nearest(sizes[name], allowed.get(name)) for name in export_sizes if name in sizes}
        choices.append((fitting, padding if masked else ""))
    return choices


def extreme_sizes(
    export_sizes: Mapping[str, int],
    longest: int | None,
    lengths: Iterable[int],
    allowed: Mapping[str, range] | None = None,
) -> list[tuple[dict[str, int], str]]:
    """(sizes, padding) of rows with these lengths, and of batches with each row padded in a way of its own.

    Without a text there are no rows of any length.

    Args:
        export_sizes, longest, allowed: see `default_sizes`.
        lengths: in tokens.
    """
    limit = longest or 10**6
    texts = {name for name in export_sizes if name in axes.TEXTS}
    past = next((name for name in axes.PASTS if name in export_sizes), None)
    tokens = sorted({min(length, limit) for length in lengths}) if texts else []
    choices = [(_row(export_sizes, length, past, 0), "") for length in tokens]
    # Try a cache at a usual length too, however short the texts are at which the model changes.
    whole = min(limit, max([*tokens, USUAL_ROW]))
    if past and tokens and whole > _AFTER_PAST:
        choices.append((_row(export_sizes, whole, past, whole - _AFTER_PAST), ""))
    choices.append((_batch(export_sizes, limit, past, len(WAYS), 2), "mixed"))
    if texts:
        # Two rows, padded at either end, for a mask that is right only up to some length.
        choices.append((_batch(export_sizes, limit, past, 2, 4), "mixed"))
    allowed = allowed or {}
    return [
        ({name: nearest(size, allowed.get(name)) for name, size in sizes.items()}, padding)
        for sizes, padding in choices
    ]


def _row(export_sizes: Mapping[str, int], length: int, past: str | None, before: int) -> dict[str, int]:
    """One row whose texts have this length; a text with a past has it together with `before` tokens of the past."""
    sizes = {}
    for name, size in export_sizes.items():
        if name in axes.TEXTS:
            sizes[name] = length - before if axes.PAST_OF.get(name) == past else length
        else:
            sizes[name] = before if name == past else 1 if name in (*axes.BATCHES, axes.CHOICE) else size
    return sizes


def _batch(export_sizes: Mapping[str, int], limit: int, past: str | None, rows: int, factor: int) -> dict[str, int]:
    """Rows whose texts, or pasts, are longer than the export's by that factor, so that padding is as long as these."""
    before = min(factor * export_sizes[past] + 3, max(0, limit - _AFTER_PAST)) if past else 0
    sizes = {}
    for name, size in export_sizes.items():
        if name in axes.TEXTS:
            has_past = past and axes.PAST_OF.get(name) == past
            sizes[name] = min(_AFTER_PAST, limit) if has_past else min(factor * size + 3, limit)
        elif name in axes.BATCHES:
            sizes[name] = rows
        else:
            sizes[name] = before if name == past else size
    return sizes
