"""Parity: export Transformers models and prove that the exported model computes what PyTorch computes."""

__version__ = "0.2.0"

import os
import sys

# So `python -m parity.…` finds its packages, before the first line of the command.
if sys.argv[:1] == ["-m"] and any(word.removeprefix("-m").split(".")[0] == "parity" for word in sys.orig_argv):
    try:
        from parity.interruptions import begin

        begin()
    except KeyboardInterrupt:
        os.write(2, b"parity: error: interrupted; nothing was written\n")
        os._exit(130)
