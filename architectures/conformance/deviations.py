"""Tracked upstream bugs that affect many architectures, each declared once as a `parity.declaration.Deviation`.

A bug of one architecture belongs into the declaration of that architecture. A bug of a transformers release that
affects every model with a past, for example, is recognised by the message of its exception:

    Deviation(
        raises="TypeError",
        message="unexpected keyword argument 'past_key_values'",
        reason="the argument of the caches has another name",
        issue="https://github.com/huggingface/transformers/issues/…",
        versions="transformers==5.24.0",
        features=("causal-lm-with-past", "default-with-past"),
    )
"""

from __future__ import annotations

from parity.declaration import Deviation

DEVIATIONS: tuple[Deviation, ...] = ()
