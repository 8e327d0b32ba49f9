"""Drives the app's page in Chromium, as a person does. Needs selenium."""

import shutil
import time

PATIENCE = 240  # seconds, on a machine with much else to do


def programs():
    """Chromium and its driver, or None for each that is not there."""
    return shutil.which("chromium") or shutil.which("chromium-browser"), shutil.which(
        "chromedriver"
    )


def open_browser(profile):
    """A browser without a window, that asks for nothing by itself and logs what pages ask for."""
    from selenium import webdriver

    chromium, driver = programs()
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
        *(f"--user-data-dir={profile}", "--window-size=1000,900"),
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


def until(found, what):
    """The first true value of a function, which may raise until then."""
    end, last = time.monotonic() + PATIENCE, None
    while time.monotonic() < end:
        try:
            if value := found():
                return value
        except Exception as error:
            last = error
        time.sleep(0.2)
    raise AssertionError(f"waited {PATIENCE} s for {what}: {last}")


class Page:
    """What a person does with the page."""

    def __init__(self, browser, url):
        self.browser, self.url = browser, url
        self.open()

    def open(self):
        """Opens the page anew."""
        self.browser.get(self.url)
        until(lambda: self.find("#photos input[type=file]"), "the page")

    def find(self, selector):
        return self.browser.find_element("css selector", selector)

    def text(self, selector):
        return self.find(selector).text

    def drop(self, *paths):
        """Drags files or folders from the desktop."""
        box = "const box = document.querySelector('#photos').getBoundingClientRect();"
        x, y = self.browser.execute_script(box + "return [box.x + box.width / 2, box.y + 40]")
        data = {"items": [], "files": list(map(str, paths)), "dragOperationsMask": 1}
        before = self.text("#photos")
        for _ in range(3):  # a page that is not ready yet takes nothing
            for kind in ("dragEnter", "dragOver", "drop"):
                event = {"type": kind, "x": x, "y": y, "data": data}
                self.browser.execute_cdp_cmd("Input.dispatchDragEvent", event)
            end = time.monotonic() + 10
            while time.monotonic() < end:
                if self.text("#photos") != before:
                    return
                time.sleep(0.1)

    def click(self, selector):
        element = self.find(selector)
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        until(lambda: element.click() or True, f"a click on {selector}")

    def wait_for_plan(self):
        """What is said of what was dropped: the plan, or what is wrong."""
        return until(lambda: self.text("#plan"), "the plan")

    def protect(self):
        """Starts the work, and waits for what it ends with."""
        self.click("#start")
        until(lambda: all(side[0] for side in self.pictures()) and self.pictures(), "the slider")

    def slide(self, pixels):
        """Drags the line of the slider."""
        from selenium.webdriver import ActionChains

        handle = self.find("#slider .outer")
        ActionChains(self.browser).drag_and_drop_by_offset(handle, pixels, 0).perform()

    def pictures(self):
        """Of both sides of the slider: natural width, shown width, and what is cut off."""
        return self.browser.execute_script(
            "return [...document.querySelectorAll('#slider img')].map(i => [i.naturalWidth, "
            "i.getBoundingClientRect().width, getComputedStyle(i).clipPath])"
        )
