"""The package and its help are there at once: torch is imported only where it is needed."""

import ast
import importlib
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from torchvision import datasets

import unlearnable as ue
from unlearnable.cli import choices
from unlearnable.data import datasets as named_datasets
from unlearnable.engine.models import MODELS
from unlearnable.engine.recipes import RECIPES
from unlearnable.evaluation import COUNTERMEASURES
from unlearnable.evaluation.countermeasures.sets import ADAPTIVE, SETS
from unlearnable.perturbation.visibility import VISIBILITIES
from unlearnable.protected.export import EXPORT_FORMATS

SLOW = ("torch", "torchvision", "huggingface_hub")
LAZY = [ue, ue.methods, named_datasets]
# Runs commands one after the other, and says after each which of the slow modules are there.
QUICK = f"""
import contextlib, io, sys
import unlearnable
seen = {{}}
def note(command):
    seen[command] = " ".join(name for name in {SLOW} if name in sys.modules)
note("import unlearnable")
from unlearnable.cli.main import main, make_parser
(commands,) = make_parser()._subparsers._group_actions
helps = [["--help"], ["--version"], *([name, "--help"] for name in commands.choices)]
for words in [*helps, ["list"], ["list", "--json"], *(["info", name] for name in sys.argv[1:])]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            code = main(words)
        except SystemExit as end:
            code = end.code
    assert code == 0 and out.getvalue(), words
    note(" ".join(words))
for command, found in seen.items():
    print(command, found, sep="|")
"""


def test_help_list_and_info_import_nothing_slow(perturbation, class_wise, tmp_path):
    saved = {
        "rows": perturbation.save_pretrained(tmp_path / "rows"),
        "shards": perturbation.save_pretrained(tmp_path / "shards", max_shard_size=1 << 16),
        "stack": perturbation.then(class_wise).save_pretrained(tmp_path / "stack"),
    }
    assert len(list(saved["shards"].glob("*.safetensors"))) > 1
    shipped = [entry.name for entry in ue.list_pretrained() if entry.repo is None]
    command = [sys.executable, "-c", QUICK, *map(str, saved.values()), *shipped]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    seen = dict(line.split("|") for line in found.stdout.splitlines())
    assert {"import unlearnable", "--help", "fit --help", "audit --help", "list"} <= seen.keys()
    assert len(seen) > 15 + len(shipped)
    assert {command: names for command, names in seen.items() if names} == {}


def test_options_list_what_is_defined():
    assert [method.__name__.lower() for method in ue.METHODS] == choices.METHOD_NAMES
    assert tuple(MODELS) == choices.NETWORK_NAMES
    assert tuple(RECIPES) == choices.RECIPE_NAMES
    assert choices.EXPORT_NAMES == EXPORT_FORMATS
    assert choices.VISIBILITY_NAMES == VISIBILITIES
    assert choices.COUNTERMEASURE_NAMES == COUNTERMEASURES
    assert (*SETS, ADAPTIVE) == choices.SET_NAMES
    for name in choices.DATASET_NAMES.values():
        assert issubclass(getattr(datasets, name), datasets.VisionDataset)


def imported_for_types(module):
    """Name -> module that it is imported from, below ``if TYPE_CHECKING``."""
    package = module.__name__ if hasattr(module, "__path__") else module.__name__.rpartition(".")[0]
    return {
        alias.name: importlib.import_module(f".{node.module}", package)
        for block in ast.parse(Path(module.__file__).read_text(encoding="utf-8")).body
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name != "*"
    }


@pytest.mark.parametrize("module", LAZY, ids=lambda module: module.__name__)
def test_what_type_checkers_see_is_what_is_there(module):
    found = imported_for_types(module)
    assert found
    for name, home in found.items():
        assert name in module.__all__ and getattr(module, name) is getattr(home, name)


@pytest.mark.parametrize("module", LAZY, ids=lambda module: module.__name__)
def test_dir_lists_every_public_name(module):
    assert set(module.__all__) <= set(dir(module))


def test_a_name_that_is_not_there_is_an_attribute_error():
    for module in LAZY:
        with pytest.raises(AttributeError, match=f"'{module.__name__}' has no attribute 'SEMM'"):
            _ = module.SEMM
    with pytest.raises(ImportError, match="cannot import name 'SEMM'"):
        exec("from unlearnable import SEMM")


USES = {
    "from unlearnable import SEM; print(SEM.__name__)": "SEM",
    "from unlearnable import *; print(SEM.__name__, verify.__name__)": "SEM verify",
    "import unlearnable as ue; print(ue.methods.METHODS == ue.METHODS)": "True",
    "import unlearnable as ue; print(ue.evaluation.COUNTERMEASURES[0])": "none",
    "import unlearnable as ue; print(callable(ue.audit), callable(ue.evaluate))": "True True",
    "import unlearnable.datasets; print(len(unlearnable.datasets.Shapes(size=3)))": "3",
    "from unlearnable.datasets import *; print(Shapes.__name__)": "Shapes",
    "from unlearnable.callbacks import TensorBoard; print(TensorBoard.__name__)": "TensorBoard",
    "import pickle; print(len(pickle.load(open('pickled', 'rb'))[-1]))": "40",
}
# Each in a process in which this package was not imported before, though torch was, to save time.
FRESH = """
import os, sys, torch, torchvision
for code in sys.argv[1:]:
    child = os.fork()
    if not child:
        exec(code)
        os._exit(0)  # without the seconds that taking torch down takes
    assert os.waitpid(child, 0)[1] == 0, code
"""


@pytest.mark.slow
def test_names_are_found_whichever_is_used_first(perturbation, tmp_path):
    pickled = pickle.dumps([ue.SEM("tiny"), ue.datasets.Shapes, perturbation])
    (tmp_path / "pickled").write_bytes(pickled)
    command = [sys.executable, "-u", "-c", FRESH, *USES]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert found.stdout.splitlines() == list(USES.values()), found.stderr
