"""Run `parity check` on one file and its checkpoint in this process, so that imports take time only once."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any


def judge(checkpoint: Path, file: Path, *options: str) -> dict[str, Any]:
    """The verdict: `status` (0, 1, 2), `result` (the JSON object of the command), and `error` (its first error line).

    Args:
        options: further arguments of the command.
    """
    from parity.check import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main([str(checkpoint), str(file), "--json", *options])
    result = json.loads(out.getvalue().splitlines()[-1])
    errors = [line for line in err.getvalue().splitlines() if "error: " in line]
    return {"status": status, "result": result, "error": errors[0].partition("error: ")[2] if errors else ""}
