"""Takes screenshots of the app, for how-to/app.md, of the top of an audit's report, for the README,
or of every page of the built site, to look at.

    python docs/screenshots.py app
    python docs/screenshots.py report unlearnable-demo-audit
    python docs/screenshots.py site docs/_build/html --out screenshots

Of the site each page is shown at the width of a desktop and of a phone, light and dark; pages that
would have to be scrolled sideways are named, and end the command with status 1.

Needs selenium and Chromium with its driver; for the app also the extra app, scikit-image and
scikit-learn, whose photos are shown: astronaut (NASA), rocket (SpaceX), both public domain; chelsea
(Stefan van der Walt) and coffee (Rachel Michetti), both CC0; flower (vultilion, CC BY 2.0).
"""

import argparse
import base64
import functools
import http.server
import sys
import tempfile
import threading
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))
PHOTOS = {
    "skimage": ["data/astronaut.png", "data/chelsea.png", "data/coffee.png", "data/rocket.jpg"],
    "sklearn": ["datasets/images/flower.jpg"],
}
APP, DESKTOP, PHONE, REPORT = 860, 1400, 390, 1040  # CSS pixels
# What lies beyond the window although it is in no box of its own that scrolls.
BEYOND = """
const width = document.documentElement.clientWidth, found = [];
const inside = e => e && (getComputedStyle(e).overflowX !== "visible"
    || getComputedStyle(e).position === "fixed" || inside(e.parentElement));
for (const e of document.querySelectorAll("article *"))
    if (e.getBoundingClientRect().right > width + 1 && !inside(e.parentElement))
        found.push(e.tagName + ": " + e.textContent.trim().slice(0, 40));
return document.documentElement.scrollWidth > width ? ["scrolls sideways", ...found] : found;
"""


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("app")
    report = commands.add_parser("report")
    report.add_argument("folder", type=Path, help="that an audit wrote")
    site = commands.add_parser("site")
    site.add_argument("html", type=Path, help="folder that sphinx-build wrote")
    site.add_argument("--out", type=Path, default=Path("screenshots"))
    site.add_argument("--pages", nargs="+", help="only these, as in how-to/photos.html")
    args = parser.parse_args()
    if args.command == "app":
        app()
    elif args.command == "report":
        report_page(args.folder)
    elif wide := site_pages(args.html, args.out, args.pages):
        raise SystemExit("\n".join(["wider than the window:", *wide]))


def app():
    from browsing import Page, open_browser

    from unlearnable.photos.app.start import serving

    files = [
        Path(find_spec(package).origin).parent / name
        for package, names in PHOTOS.items()
        for name in names
    ]
    with tempfile.TemporaryDirectory() as profile, serving() as (url, _):
        browser = open_browser(profile)
        try:
            for name, width, scheme in (
                ("light", APP, "light"),
                ("dark", APP, "dark"),
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


def report_page(folder):
    """A picture of a report down to the end of its first table."""
    from browsing import open_browser

    end = "return document.querySelector('table').getBoundingClientRect().bottom + 16"
    with tempfile.TemporaryDirectory() as profile:
        browser = open_browser(profile)
        try:
            look_like(browser, REPORT, "light")
            browser.get((folder / "report.html").resolve().as_uri())
            take(browser, HERE / "images" / "audit.webp", browser.execute_script(end))
        finally:
            browser.quit()


def site_pages(html, out, pages=None):
    """Pictures of pages in a folder of pictures; gives those that are too wide."""
    from browsing import open_browser

    found = sorted(path.relative_to(html).as_posix() for path in html.rglob("*.html"))
    pages = pages or [name for name in found if not name.startswith("_")]
    handler = functools.partial(Quiet, directory=html)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    wide = []
    with tempfile.TemporaryDirectory() as profile:
        browser = open_browser(profile)
        try:
            for width in (DESKTOP, PHONE):
                for scheme in ("light", "dark"):
                    look_like(browser, width, scheme)
                    for name in pages:
                        browser.get(f"http://127.0.0.1:{server.server_port}/{name}")
                        if scheme == "light" and (beyond := browser.execute_script(BEYOND)):
                            wide.append(f"{name} at {width} pixels: {', '.join(beyond)}")
                        place = out / f"{width}-{scheme}" / name
                        place.parent.mkdir(parents=True, exist_ok=True)
                        take(browser, place.with_suffix(".webp"))
        finally:
            browser.quit()
            server.shutdown()
    return wide


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def look_like(browser, width, scheme):
    """A window of a width, of somebody who likes it light or dark."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def take(browser, path, height=16_000):
    """The page, also below the window, down to a height, or as far as a WebP file reaches."""
    size = "const page = document.documentElement; return [page.clientWidth, page.scrollHeight]"
    width, whole = browser.execute_script(size)
    clip = {"x": 0, "y": 0, "width": width, "height": min(height, whole), "scale": 1}
    options = {"captureBeyondViewport": True, "clip": clip, "format": "webp", "quality": 80}
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", options)["data"]
    path.write_bytes(base64.b64decode(shot))


if __name__ == "__main__":
    main()
