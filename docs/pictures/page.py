"""Takes page.png: the page that `liontool inspect --html` writes.

    python docs/pictures/page.py PAGE.html

Needs playwright, pillow and an installed Chromium.
"""

from __future__ import annotations

import shutil
import sys
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

WIDTH, HEIGHT = 1240, 900


def take(page: Path, picture: Path) -> None:
    """Smaller than on a screen, and in few colors."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        view.goto(page.resolve().as_uri())
        shot = Image.open(BytesIO(view.screenshot(full_page=True)))
        browser.close()
    size = (shot.width * 2 // 3, shot.height * 2 // 3)
    small = shot.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    small.quantize(96, Image.Quantize.MAXCOVERAGE).save(picture, optimize=True)


if __name__ == "__main__":
    take(Path(sys.argv[1]), Path(__file__).with_suffix(".png"))
