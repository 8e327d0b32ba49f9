"""Imports point one way, and the tool settings stay where they belong."""

import ast
import configparser
import subprocess
import sys
from pathlib import Path

import unlearnable

PACKAGE = Path(unlearnable.__file__).parent
ROOT = Path(__file__).parent.parent

# Top-level module or package -> those of its own package it may import.
ALLOWED = {
    "errors": set(),
    "output": set(),
    "datasets": set(),
    "callbacks": set(),
    "learning": {"learning"},
    "photos": set(),
    "photo_folder": {"photos"},
    "arrays": {"datasets"},
    "batches": {"arrays"},
    "hf": set(),
    "listed": set(),
    "data": {"arrays", "batches", "hf", "listed", "photos"},
    "pictures": {"batches", "data", "protected"},  # protected for its type alone
    "seal": {"artefact", "perturbation"},
    "manifest": {"batches", "data", "photos", "seal"},
    "export": {"batches", "data", "export", "manifest", "output"},
    "joined": set(),
    "sharing": {"joined"},
    "strict_json": {"errors"},
    "tensorfile": {"errors", "joined", "output", "strict_json"},
    "rows": set(),
    "change": {"batches", "data", "protected"},  # likewise
    "generators": {"rows"},
    "kinds": {"arrays", "batches", "data", "errors", "generators", "rows"},
    "additive": {"arrays", "batches", "data", "errors", "kinds", "rows"},
    "stack": {"additive", "arrays", "batches", "kinds"},
    "fullsize": {"additive", "arrays", "batches", "data", "kinds", "stack"},
    "config": {"errors", "stack", "strict_json"},
    "artefact": {
        "config", "errors", "joined", "kinds", "output", "stack", "strict_json", "tensorfile",
    },
    "store": {"batches", "data", "errors", "output", "tensorfile"},
    "concat": {"additive", "joined", "kinds", "store"},
    "about": {"batches", "kinds", "perturbation", "pictures"},  # perturbation for its type alone
    "hub": {"catalogue", "errors", "__init__"},  # for what names look like, and the version
    "catalogue": {"errors", "hub", "perturbation"},  # hub when called, perturbation for its type
    "card": {"about", "perturbation"},
    "publish": {"artefact", "card", "hub", "output", "perturbation", "strict_json"},
    "perturbation": {
        "about", "additive", "arrays", "artefact", "batches", "catalogue", "concat", "config",
        "data", "errors", "fullsize", "hub", "joined", "kinds", "publish", "rows",
        "sharing", "stack", "store", "strict_json",
    },
    "protected": {
        "arrays", "batches", "change", "data", "errors", "export", "kinds", "listed", "manifest",
        "perturbation", "pictures", "seal",
    },
    "verify": {
        "batches", "data", "manifest", "perturbation", "photo_folder", "photos", "protected",
        "seal",
    },
    "methods": {
        "methods", "learning", "about", "config", "data", "errors", "generators", "output",
        "perturbation", "protected", "rows", "store", "__init__",
    },
    "pickled": {"errors"},
    "foreign": {"batches", "data", "errors", "pickled"},
    "importers": {
        "__init__", "about", "config", "foreign", "learning", "methods", "perturbation", "rows",
        "store",
    },
    "evaluation": {
        "evaluation", "batches", "change", "data", "datasets", "errors", "learning", "output",
        "perturbation", "pictures", "protected", "store", "__init__",
    },
    "demo": None,
    "arguments": {"datasets", "methods", "photo_folder"},
    "commands": None,
    "cli": {
        "__init__", "arguments", "commands", "errors", "evaluation", "export", "importers",
        "learning",
    },
    "__main__": {"cli"},
    "__init__": None,
}  # fmt: skip


def imported(path):
    """Top-level names of this package that a file imports."""
    package = ["unlearnable", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom) or not node.level:
            continue
        base = package[: len(package) - node.level + 1]
        target = base + (node.module.split(".") if node.module else [])
        if len(target) > 1:
            yield target[1]
        else:
            for alias in node.names:
                yield alias.name if (PACKAGE / f"{alias.name}.py").exists() else "__init__"


def test_imports_point_one_way():
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        allowed = ALLOWED[name]
        if allowed is not None:
            wrong = set(imported(path)) - allowed
            assert not wrong, f"{path.relative_to(PACKAGE)} imports {sorted(wrong)}"


def test_optional_and_network_packages_are_not_imported_at_start():
    code = "import sys, unlearnable; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"matplotlib", "huggingface_hub", "datasets"}.isdisjoint(found.stdout.split())


def test_setup_cfg_holds_tool_sections_only():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    assert {"metadata", "options"}.isdisjoint(parser.sections())
    assert {"mypy", "tool:pytest", "coverage:run"} <= set(parser.sections())


def test_all_names_are_there():
    assert all(hasattr(unlearnable, name) for name in unlearnable.__all__)
    assert sorted(unlearnable.__all__) == sorted(set(unlearnable.__all__))
