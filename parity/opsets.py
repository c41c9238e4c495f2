"""Which opsets can be asked for; imports no torch, so that a wrong one is refused at once."""

from __future__ import annotations

from parity.environment import at_least
from parity.errors import UsageError

MINIMUM_OPSET = 11
# The exporter of torch 1.13, the last that the SDK of AWS Inf1 supports, ends there.
MAXIMUM_OPSET = 20 if at_least("torch", "2") else 17
# Neither scaled_dot_product_attention nor triu and tril have a lowering below.
SDPA_MINIMUM_OPSET = 14
TRILU_MINIMUM_OPSET = 14


def check_opset(opset: int, minimum: int = MINIMUM_OPSET, subject: str = "this exporter", reason: str = "") -> None:
    """Refuse an opset that the exporter, or the model, cannot deliver.

    Raises:
        UsageError
    """
    if not minimum <= opset <= MAXIMUM_OPSET:
        why = f" ({reason})" if reason and opset < minimum else ""
        raise UsageError(f"opset: got {opset}, should be {minimum} to {MAXIMUM_OPSET} for {subject}{why}")
