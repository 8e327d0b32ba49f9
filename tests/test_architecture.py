"""Imports run one way, and the tool settings stay where they belong."""

import ast
import configparser
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import architecture
import pytest

import unlearnable

ROOT = Path(__file__).parent.parent
ARROWS = architecture.graph()
SCRIPTS = sorted([*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "examples").rglob("*.py")])
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md"]
PAGES += sorted((ROOT / "docs").rglob("*.md"))


def test_packages_import_only_those_below_them():
    assert architecture.upward(ARROWS) == []


def test_there_is_no_circle():
    assert architecture.circle(ARROWS) == []


def test_every_entry_at_the_top_has_its_place_in_the_order():
    assert {architecture.room(name) for name in ARROWS} == set(architecture.ORDER)
    assert len(architecture.ORDER) <= 15


def test_circles_and_upward_imports_are_found():
    arrows = {"io.a": {"data.b"}, "data.b": {"data.c"}, "data.c": {"data.b", "io.d"}, "io.d": set()}
    assert set(architecture.circle(arrows)) == {"data.b", "data.c"}
    assert architecture.upward(arrows) == [("io.a", "data.b")]


def test_lazy_imports_and_those_for_types_count(tmp_path):
    (tmp_path / "a.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .b import x\n"
        "def f():\n    from . import c\n"
    )
    for name in "bc":
        (tmp_path / f"{name}.py").touch()
    assert architecture.graph(tmp_path)["a"] == {"b", "c"}


def test_the_page_lists_the_packages_in_their_order():
    page = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    assert tuple(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == architecture.ORDER


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_import_names_that_are_there(script):
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("unlearnable"):
            module = importlib.import_module(node.module)
            assert [name.name for name in node.names if not hasattr(module, name.name)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_paths_that_pages_name_are_there(page):
    named = r"\b(?:unlearnable|tests|docs|benchmarks|examples)/[\w/.-]*\w"
    paths = re.findall(named, page.read_text(encoding="utf-8"))
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_definitions_have_one_meaning():
    assert architecture.repeated() == {}


@pytest.mark.parametrize("name", ["datasets", "callbacks"])
@pytest.mark.slow
def test_names_that_users_know_can_be_imported(name):
    code = f"import unlearnable.{name} as a; from unlearnable import {name} as b; print(a is b)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "True\n"


@pytest.mark.slow
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


def test_every_method_is_named_where_type_checkers_look():
    named = {"METHODS", "Method", *(method.__name__ for method in unlearnable.METHODS)}
    assert set(unlearnable.methods.__all__) == named
    assert named <= set(unlearnable.__all__)


USER = """
import unlearnable as ue
from unlearnable.callbacks import TensorBoard
from unlearnable.datasets import Shapes

method = ue.SEM("tiny").fit(Shapes(size=8), callback=TensorBoard("runs"))
protected: ue.ProtectedDataset = method.protect(ue.datasets.Shapes(size=8))
figures: ue.Evaluation = ue.evaluate(protected, Shapes(size=8))
report: ue.AuditReport = ue.audit(protected)
ue.SEM.misspelt
ue.misspelt
ue.datasets.misspelt
"""


@pytest.mark.slow
def test_type_checkers_see_the_public_names(tmp_path):
    (tmp_path / "user.py").write_text(USER)
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "user.py"]
    where = Path(unlearnable.__file__).parent.parent
    # mypy finds what is installed, but not an editable installation, and refuses the former's path.
    paths = {} if where.name == "site-packages" else {"MYPYPATH": str(where)}
    found = subprocess.run(
        command, cwd=tmp_path, env=os.environ | paths, capture_output=True, text=True
    )
    *errors, _ = found.stdout.splitlines()
    assert errors == [
        'user.py:10: error: "type[SEM]" has no attribute "misspelt"  [attr-defined]',
        'user.py:11: error: Module has no attribute "misspelt"  [attr-defined]',
        'user.py:12: error: Module has no attribute "misspelt"  [attr-defined]',
    ], found.stdout + found.stderr
