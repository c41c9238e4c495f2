"""Screenshots of the page: `python -m parity.reports.pages.screenshots PAGE` writes those of the README."""

from __future__ import annotations

import argparse
import contextlib
import io
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from parity.console import run_guarded
from parity.errors import EnvironmentGap, UsageError
from parity.reports.gate.changes import WORST

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

DIRECTORY = Path("reports/screenshots")
_NAMES = ("chromium", "chromium-browser", "google-chrome")


def gap() -> str | None:
    """Why no browser can be driven here and what to install; None if one can."""
    try:
        import playwright.sync_api  # noqa: F401 - only whether it is there
    except ImportError:
        return "playwright is not installed; pip install 'parity[test]'"
    if executable() is None:
        return "Chromium is not installed; apt-get install chromium"
    return None


def executable() -> str | None:
    """The path of the browser, or None."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """A headless Chromium, driven by playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        # Chromium's own sandbox does not start for root, and containers run as root.
        yield driver.chromium.launch(executable_path=executable(), args=["--no-sandbox"])


@contextlib.contextmanager
def open_page(
    chromium: Browser, path: Path, *, scheme: str = "light", width: int = 1280, height: int = 760, address: str = ""
) -> Iterator[Page]:
    """The rendered page in a window, which closes on exit.

    Args:
        chromium: from `browser`.
        path: of the HTML file.
        scheme: the colours that the reader prefers, `light` or `dark`.
        width, height: of the window, in pixels.
        address: the URL fragment (after `#`), such as a cell.
    """
    window = chromium.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    window.goto(path.resolve().as_uri() + (f"#{address}" if address else ""))
    window.wait_for_selector("html[data-ready]")
    yield window
    window.close()


def main(argv: Sequence[str] | None = None, prog: str = "python -m parity.reports.pages.screenshots") -> int:
    """Write the screenshots; returns the exit status."""
    parser = argparse.ArgumentParser(prog, description="Take the README's pictures of a page.")
    parser.add_argument("page", type=Path, help="the HTML file that python -m parity.reports has written")
    parser.add_argument("--output", type=Path, default=DIRECTORY, help="the directory (default: %(default)s)")
    args = parser.parse_args(argv)
    return run_guarded(prog, lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    if not args.page.is_file():
        raise UsageError(f"{args.page}: no such file; python -m parity.reports makes it")
    reason = gap()
    if reason:
        raise EnvironmentGap(reason)
    args.output.mkdir(parents=True, exist_ok=True)
    with browser() as chromium:
        with open_page(chromium, args.page) as window:
            window.evaluate("document.getElementById('matrix').scrollIntoView()")
            _write(args.output / "matrix.png", window.screenshot())
            _write(args.output / "ratios.png", window.locator("#ratios svg").screenshot())
        with open_page(chromium, args.page, scheme="dark") as window:
            # Show the worst status: people open the page for its rows and messages.
            shown = next(name for name in WORST if window.locator(f"#grids button.{name}").count())
            window.locator(f"#grids button.{shown}").first.click()
            window.get_by_role("dialog").wait_for()
            _write(args.output / "checks.png", window.screenshot())
    print(f"{args.output}: matrix.png, ratios.png, checks.png")
    return 0


def _write(path: Path, screenshot: bytes) -> None:
    # A palette halves the size without visible loss on a page of text.
    Image.open(io.BytesIO(screenshot)).convert("RGB").quantize(256).save(path, optimize=True)


if __name__ == "__main__":
    sys.exit(main())
