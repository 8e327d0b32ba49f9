"""The built site: no link leads nowhere, search knows the classes, and cards have a picture."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


class Html(HTMLParser):
    """What a page links to, and what can be linked to in it."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors, self.metas = [], set(), {}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors |= {attrs.get("id"), attrs.get("name")}
        self.links += [attrs[name] for name in ("href", "src") if attrs.get(name)]
        if tag == "meta" and "property" in attrs:
            self.metas[attrs["property"]] = attrs["content"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site with its tutorials as they are written, which this does not run."""
    pytest.importorskip("sphinx_gallery")
    source = tmp_path_factory.mktemp("source")  # a copy, since the gallery writes into it
    built = shutil.ignore_patterns("_build", "tutorials")
    shutil.copytree(ROOT / "docs", source / "docs", ignore=built)
    shutil.copytree(ROOT / "examples", source / "examples")
    shutil.copy(ROOT / "pyproject.toml", source)
    out = source / "html"
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-D", "plot_gallery=0"]
    done = subprocess.run(
        [*command, source / "docs", out], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def pages(site):
    return {path: Html(path) for path in sorted(site.rglob("*.html"))}


def test_no_link_within_the_site_leads_nowhere(site, pages):
    broken = []
    for path, page in pages.items():
        for link in page.links:
            address = urlsplit(link)
            if address.scheme or address.netloc:
                continue
            target = (path.parent / unquote(address.path)).resolve() if address.path else path
            target = target / "index.html" if target.is_dir() else target
            anchor = unquote(address.fragment)
            known = pages[target].anchors if target in pages else {anchor}
            if "_modules" in path.parts:  # viewcode's way back, by names that it makes up
                known = {anchor}
            if not target.exists() or (anchor and anchor not in known):
                broken.append(f"{path.relative_to(site)}: {link}")
    assert broken == []


def test_every_page_is_reached_from_the_side(site, pages):
    """Furo's navigation is the same on all pages."""
    front = site / "index.html"
    reached = {(site / urlsplit(link).path).resolve() for link in pages[front].links}
    apart = {"genindex.html", "py-modindex.html", "search.html", "index.html"}
    missed = {p.relative_to(site).as_posix() for p in pages if "_modules" not in p.parts}
    missed -= {p.relative_to(site).as_posix() for p in reached if p.is_relative_to(site)} | apart
    assert missed == set()


def test_search_finds_the_names_of_classes(site):
    """What Sphinx's search looks through first are the names of objects."""
    text = (site / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(re.fullmatch(r"Search\.setIndex\((.*)\)", text, re.DOTALL)[1])
    names = {name for entries in index["objects"].values() for *_, name in entries}
    assert {"ProtectedDataset", "Perturbation", "SEM", "evaluate", "audit"} <= names


def test_pages_shared_as_cards_have_a_picture(site, pages):
    metas = pages[site / "how-to" / "photos.html"].metas
    assert metas["og:title"] == "A folder of photos" and metas["og:description"]
    assert (site / "how-to" / metas["og:image"]).resolve().exists()


def test_notebooks_have_no_markup_of_sphinx(site):
    notebooks = sorted((site / "_downloads").rglob("*.ipynb"))
    assert len(notebooks) == len(list((ROOT / "examples" / "tutorials").glob("plot_*.py")))
    for path in notebooks:
        with zipfile.ZipFile(next((site / "_downloads").rglob(f"{path.stem}.zip"))) as both:
            assert both.read(path.name) == path.read_bytes()
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
        assert not re.search(r":\w+:`|^\.\. ", text, re.MULTILINE), path.name
        assert "What to read next" in text


def test_words_of_a_command_do_not_break_at_a_hyphen(site):
    page = (site / "how-to" / "photos.html").read_text(encoding="utf-8")
    assert '<span class="whole">--perturbation</span>' in page
