"""Tracked upstream bugs of many architectures: each is declared here once, as `parity.declaration.Deviation` says.

A bug of one architecture belongs into the declaration of that architecture. What a release of transformers breaks for
every model with a past, for example, is found by the message of its exception:

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
