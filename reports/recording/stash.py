"""What the plug-ins of one run hand to each other."""

import pytest

# Which shard the run is, if it is one.
SHARD = pytest.StashKey[dict]()
