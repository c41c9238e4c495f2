"""The opsets that can be requested; imports no torch, so that a wrong opset is refused at once."""

from __future__ import annotations

from parity.environment import at_least
from parity.errors import UsageError

MINIMUM_OPSET = 11
# The exporter of torch 1.13, the last torch that the SDK of AWS Inf1 supports, ends there.
MAXIMUM_OPSET = 20 if at_least("torch", "2") else 17
# Below, neither scaled_dot_product_attention nor triu and tril have a lowering.
SDPA_MINIMUM_OPSET = 14
TRILU_MINIMUM_OPSET = 14


# The opsets of the tracing exporter.
OPSETS = range(MINIMUM_OPSET, MAXIMUM_OPSET + 1)


def check_opset(opset: int, opsets: range = OPSETS, subject: str = "this exporter", reason: str = "") -> None:
    """Refuse an opset that the exporter, or the model, does not support.

    Args:
        opset: the requested opset.
        opsets: the supported opsets.
        subject: the exporter or model, for the message.
        reason: why lower opsets are not supported.

    Raises:
        UsageError
    """
    if not opsets.start <= opset < opsets.stop:
        why = f" ({reason})" if reason and opset < opsets.start else ""
        raise UsageError(f"opset: got {opset}, should be {opsets.start} to {opsets.stop - 1} for {subject}{why}")
