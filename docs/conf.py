import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import unlearnable

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # of Sphinx

HERE = Path(__file__).parent
with (HERE.parent / "pyproject.toml").open("rb") as _file:
    PROJECT = tomllib.load(_file)["project"]


def repository():
    """The address that the package names, or where this clone is from."""
    command = ["git", "-C", HERE, "remote", "get-url", "origin"]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    found = re.sub(r"^git@([^:]+):", r"https://\1/", found).removesuffix(".git")
    named = PROJECT.get("urls", {}).get("Repository")
    return named or (found if found.startswith("https://") else None)


REPOSITORY = repository()

project = "unlearnable"
author = "the unlearnable contributors"
copyright = author
release = version = unlearnable.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
maximum_signature_line_length = 88
myst_heading_anchors = 3
myst_enable_extensions = ["attrs_block", "colon_fence"]
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True

pygments_dark_style = "github-dark"

html_theme = "furo"
html_domain_indices = False  # of modules, few of which are documented as such
html_title = f"unlearnable {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/logo.svg"
html_baseurl = os.environ.get("READTHEDOCS_CANONICAL_URL") or PROJECT.get("urls", {}).get(
    "Documentation", ""
)
html_context = {
    "description": PROJECT["description"],
    "social_card": "_static/social-card.png",
    "repository": REPOSITORY,
}
html_sidebars = {
    "**": [
        "sidebar/brand.html",
        "sidebar/repository.html",
        "sidebar/search.html",
        "sidebar/scroll-start.html",
        "sidebar/navigation.html",
        "sidebar/scroll-end.html",
    ]
}
html_theme_options = {
    "light_logo": "logo.svg",
    "dark_logo": "logo.svg",
    "light_css_variables": {"color-brand-primary": "#0b6e6e", "color-brand-content": "#0b6e6e"},
    "dark_css_variables": {"color-brand-primary": "#4fc3bd", "color-brand-content": "#4fc3bd"},
}
if REPOSITORY and "://github.com/" in REPOSITORY:  # links to each page's source
    html_theme_options |= {
        "source_repository": REPOSITORY,
        "source_branch": "main",
        "source_directory": "docs/",
    }

# The tutorials are scripts that the build runs; a build without them needs neither.
TUTORIALS = HERE.parent / "examples" / "tutorials"
if list(TUTORIALS.glob("*.py")):
    extensions.append("sphinx_gallery.gen_gallery")
    sphinx_gallery_conf = {
        "examples_dirs": str(TUTORIALS),
        "gallery_dirs": "tutorials",
        "filename_pattern": r"\.py$",  # all of them run
        "within_subsection_order": "FileNameSortKey",
        "abort_on_example_error": True,
        "download_all_examples": False,
        "remove_config_comments": True,
        "show_memory": False,
        "show_signature": False,
        "min_reported_time": 1,
        "write_computation_times": False,
        "capture_repr": ("_repr_html_", "__repr__"),
        "doc_module": ("unlearnable",),
        "backreferences_dir": None,
        "reference_url": {"unlearnable": None},
        "first_notebook_cell": "%matplotlib inline",
    }


def keep_words_whole(app, pagename, templatename, context, doctree):
    """Browsers break lines after any hyphen, also within ``--image-size``."""

    def marked(block):
        return re.sub(r"(?<=[\s>])([\w.]*-[\w-]+)", r'<span class="whole">\1</span>', block[0])

    if body := context.get("body"):
        blocks = r'<div class="highlight-console.*?</pre>'
        body = re.sub(blocks, marked, body, flags=re.DOTALL)
        words = r'<span class="pre">([^<]{1,36}</span>)'  # longer ones may break
        context["body"] = re.sub(words, r'<span class="pre whole">\1', body)


def readable_defaults(app, what, name, obj, options, signature, returns):
    """Budgets as they are written, 8 / 255, and dots for what dataclasses call a factory."""

    def fraction(found):
        levels = round(255 * float(found[0]), 4)
        return f"{levels:g} / 255" if levels / 255 == float(found[0]) else found[0]

    if signature:
        signature = re.sub(r"\b0\.\d{6,}", fraction, signature).replace("<factory>", "...")
    return signature, returns


def name_pages_in_notebooks(app, env):
    """Notebooks are Markdown, which has neither roles nor figures."""

    def link(found):
        label, name = found.groups()
        name = name.lstrip("/") if name.startswith("/") else f"tutorials/{name}"
        label = " ".join((label or env.titles[name].astext()).split())
        address = app.config.html_baseurl.rstrip("/")
        return f"[{label}]({address}/{name}.html)" if address else f"*{label}*"

    for path in Path(app.srcdir, "tutorials").glob("*.ipynb"):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            if cell["cell_type"] == "markdown":
                text = "".join(cell["source"])
                text = re.sub(r"^\.\. figure::.*\n(?:[ \t].*\n|\n)*", "", text, flags=re.MULTILINE)
                text = re.sub(r":doc:`(?:([^<`]+?)\s*<)?([\w/-]+)>?`", link, text)
                cell["source"] = [text]
        path.write_text(json.dumps(notebook, indent=1), encoding="utf-8")
        with zipfile.ZipFile(path.with_suffix(".zip"), "w") as both:  # as the gallery packs them
            for file in (path.with_suffix(".py"), path):
                both.write(file, file.name)


def setup(app):
    app.connect("autodoc-process-signature", readable_defaults)
    app.connect("html-page-context", keep_words_whole)
    app.connect("env-updated", name_pages_in_notebooks)
