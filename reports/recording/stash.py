"""What the plug-ins of one run hand to each other."""

from typing import Any

import pytest

# Which shard the run is, if it is one.
SHARD = pytest.StashKey[dict[str, Any]]()
# What the run left out.
PART = pytest.StashKey[dict[str, Any]]()
