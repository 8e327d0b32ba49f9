"""Training code as people write it: each framework's network gets the protected pixels.

The examples of ``examples/frameworks`` run whole, twice each: with their two marked lines, and
without them on images to which the same rows were added by hand. With equal seeds both give the
network the same numbers, whatever is augmented.
"""

import importlib
import random
import re
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import unlearnable as ue
from unlearnable import RandomNoise, datasets
from unlearnable.datasets import Shapes

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples" / "frameworks").glob("*.py"))
IMAGES = 40
MARK = re.compile(r"^.*  # line [12]\n", re.MULTILINE)

# Frameworks warn about what is theirs: few workers, few images, names that are to change.
pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.filterwarnings("error:::unlearnable"),
]


class ByHand(Shapes):
    """The images that ``RandomNoise`` protects, with the rows added and clipped here."""

    def __init__(self, *, size, transform=None):
        super().__init__(size=size, transform=transform)
        rows = RandomNoise().fit(Shapes(size=size), device="cpu", progress=False).perturbation_.rows
        moved = self.data.astype(int) + np.asarray(rows).transpose(0, 2, 3, 1)
        clean, self.data = self.data, np.clip(moved, 0, 255).astype(np.uint8)
        assert (self.data != clean).any((1, 2, 3)).all()


@pytest.fixture
def seen():
    """Batches of images that networks get, as long as the test runs."""
    batches = []

    def keep(module, inputs):
        if isinstance(module, nn.Conv2d) and module.in_channels == 3:
            batches.append(inputs[0].detach().cpu().clone())

    hook = nn.modules.module.register_module_forward_pre_hook(keep)
    yield batches
    hook.remove()


@pytest.fixture
def run(seen, tmp_path, monkeypatch):
    """Runs an example's source and returns the batches that its network got."""
    monkeypatch.syspath_prepend(tmp_path)  # workers that do not fork import the script, too
    monkeypatch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")

    def run(name, source, **arguments):
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
        importlib.invalidate_caches()
        script = importlib.import_module(name)
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(1)
        script.main(images=IMAGES, **arguments)
        batches = list(seen)
        seen.clear()
        return batches

    yield run
    for name in [name for name in sys.modules if name.startswith("script_")]:
        del sys.modules[name]


@pytest.fixture
def single(monkeypatch):
    """What ``torchrun`` tells its only process."""
    told = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "MASTER_ADDR": "127.0.0.1"}
    for name, value in (told | {"MASTER_PORT": 0}).items():
        monkeypatch.setenv(name, str(value))


def assert_gets_protected_images(run, monkeypatch, example, **arguments):
    source = example.read_text(encoding="utf-8")
    plain = MARK.sub("", source)
    with monkeypatch.context() as patch:
        patch.setattr(datasets, "Shapes", ByHand)
        expected = run("script_by_hand", plain, **arguments)
    with monkeypatch.context() as patch:
        patch.setattr(ue, "LSP", RandomNoise)  # whose rows are known without this package's adding
        protected = run("script_protected", source, **arguments)
    epochs = 2 if example.stem == "distributed" else 1
    assert sum(map(len, protected)) == epochs * IMAGES
    assert len(protected) == len(expected)
    assert all(torch.equal(*pair) for pair in zip(protected, expected, strict=True))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_the_users_script_and_two_lines(example):
    source = example.read_text(encoding="utf-8")
    assert [line.rsplit(" ", 1)[1] for line in source.splitlines() if "  # line " in line] == [
        "1",
        "2",
    ]
    plain = MARK.sub("", source)
    assert "ue." not in plain.split('"""')[2]
    assert len(source.splitlines()) - len(plain.splitlines()) == 2


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_the_network_of_an_example_gets_the_protected_images(
    example, workers, run, single, monkeypatch
):
    assert_gets_protected_images(run, monkeypatch, example, workers=workers)


def test_timm_without_its_prefetcher(run, monkeypatch):
    example = ROOT / "examples" / "frameworks" / "timm_loader.py"
    assert_gets_protected_images(run, monkeypatch, example, workers=0, use_prefetcher=False)


def test_the_page_shows_parts_of_the_examples():
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    named = r"`examples/frameworks/(\w+).py`[^\n]*\n\n```python\n(.*?)```"
    shown = re.findall(named, page, re.DOTALL)
    assert sorted(name for name, _ in shown) == [path.stem for path in EXAMPLES]
    for name, block in shown:
        source = (ROOT / "examples" / "frameworks" / f"{name}.py").read_text(encoding="utf-8")
        assert textwrap.indent(block, "    ") in source and "  # line 2" in block
        assert "import unlearnable as ue  # line 1" in source
