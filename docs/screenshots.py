"""Takes the screenshots of docs/how-to/app.md: python docs/screenshots.py

Needs the extra app, selenium, Chromium with its driver, scikit-image and scikit-learn, whose photos
are shown: astronaut (NASA), rocket (SpaceX), both public domain; chelsea (Stefan van der Walt) and
coffee (Rachel Michetti), both CC0; flower (vultilion, CC BY 2.0).
"""

import base64
import io
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

from unlearnable.photos.app.start import serving

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))
PHOTOS = {
    "skimage": ["data/astronaut.png", "data/chelsea.png", "data/coffee.png", "data/rocket.jpg"],
    "sklearn": ["datasets/images/flower.jpg"],
}
WIDE, PHONE = 860, 390  # CSS pixels


def main():
    from browsing import Page, open_browser

    files = [
        Path(find_spec(package).origin).parent / name
        for package, names in PHOTOS.items()
        for name in names
    ]
    with tempfile.TemporaryDirectory() as profile, serving() as (url, _):
        browser = open_browser(profile)
        try:
            for name, width, scheme in (
                ("light", WIDE, "light"),
                ("dark", WIDE, "dark"),
                ("phone", PHONE, "light"),
            ):
                look_like(browser, width, scheme)
                page = Page(browser, url)
                page.drop(*files)
                page.wait_for_plan()
                page.protect()
                take(browser, HERE / "images" / f"app-{name}.webp")
        finally:
            browser.quit()


def look_like(browser, width, scheme):
    """A window of a width, of somebody who likes it light or dark."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def take(browser, path):
    """The whole page, also below the window."""
    size = "const page = document.documentElement; return [page.clientWidth, page.scrollHeight]"
    width, height = browser.execute_script(size)
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
    options = {"captureBeyondViewport": True, "clip": clip}
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", options)["data"]
    Image.open(io.BytesIO(base64.b64decode(shot))).convert("RGB").save(path, quality=80, method=6)


if __name__ == "__main__":
    main()
