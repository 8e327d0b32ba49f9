"""Training code as people write it: each framework's network gets the protected pixels.

The examples of ``examples/frameworks`` run whole, twice each: with their two marked lines, and
without them on images to which the same rows were added by hand. With equal seeds both give the
network the same numbers, whatever is augmented.
"""

import contextlib
import importlib
import random
import re
import subprocess
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


@contextlib.contextmanager
def watched():
    """Collects the batches of images that networks get."""
    batches = []

    def keep(module, inputs):
        if isinstance(module, nn.Conv2d) and module.in_channels == 3:
            batches.append(inputs[0].detach().cpu().clone())

    hook = nn.modules.module.register_module_forward_pre_hook(keep)
    try:
        yield batches
    finally:
        hook.remove()


def run(folder, name, source, **arguments):
    """What the network of an example gets."""
    (folder / f"{name}.py").write_text(source, encoding="utf-8")
    importlib.invalidate_caches()
    with pytest.MonkeyPatch.context() as patch, watched() as batches:
        patch.syspath_prepend(folder)  # workers that do not fork import the script, too
        patch.setenv("NO_ALBUMENTATIONS_UPDATE", "1")
        script = importlib.import_module(name)
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(1)
        script.main(images=IMAGES, **arguments)
        del sys.modules[name]
    return batches


def check(folder, example, **arguments):
    """Compares what the network gets with what it has to get, and returns the number of images."""
    source = example.read_text(encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "Shapes", ByHand)
        expected = run(folder, "by_hand", MARK.sub("", source), **arguments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ue, "LSP", RandomNoise)  # whose rows are known without this package's adding
        protected = run(folder, "two_lines", source, **arguments)
    assert len(protected) == len(expected)
    assert all(torch.equal(*pair) for pair in zip(protected, expected, strict=True))
    return sum(map(len, protected))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_the_users_script_and_two_lines(example):
    source = example.read_text(encoding="utf-8")
    plain = MARK.sub("", source)
    assert len(source.splitlines()) - len(plain.splitlines()) == 2
    assert "ue." not in plain.split('"""')[2]


def single_examples():
    return [example for example in EXAMPLES if example.stem != "distributed"]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("example", single_examples(), ids=lambda path: path.stem)
def test_the_network_of_an_example_gets_the_protected_images(example, workers, tmp_path):
    assert check(tmp_path, example, workers=workers) == IMAGES


def test_timm_without_its_prefetcher(tmp_path):
    example = ROOT / "examples" / "frameworks" / "timm_loader.py"
    assert check(tmp_path, example, workers=0, use_prefetcher=False) == IMAGES


DISTRIBUTED = """
import os, pathlib, sys
sys.path.insert(0, {tests!r})
from test_frameworks import EXAMPLES, check
from torch import distributed
distributed.init_process_group("gloo")  # once: torchrun's store cannot form a second group
leave = distributed.destroy_process_group
distributed.init_process_group = distributed.destroy_process_group = lambda *name: None
folder = pathlib.Path({folder!r}, os.environ["RANK"])
folder.mkdir()
(example,) = [path for path in EXAMPLES if path.stem == "distributed"]
sys.stdout.write(f"images: {{check(folder, example)}}\\n")  # in one piece
leave()
"""


@pytest.mark.slow
def test_two_processes_fit_together_and_get_the_protected_images(tmp_path):
    driver = tmp_path / "driver.py"
    driver.write_text(DISTRIBUTED.format(tests=str(ROOT / "tests"), folder=str(tmp_path)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(driver)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    epochs, processes = 2, 2
    assert done.stdout.count(f"images: {epochs * IMAGES // processes}\n") == processes


def test_the_page_shows_parts_of_the_examples():
    page = (ROOT / "docs" / "how-to" / "training.md").read_text(encoding="utf-8")
    named = r"`examples/frameworks/(\w+).py`[^\n]*\n\n```python\n(.*?)```"
    shown = re.findall(named, page, re.DOTALL)
    assert sorted(name for name, _ in shown) == [path.stem for path in EXAMPLES]
    for name, block in shown:
        source = (ROOT / "examples" / "frameworks" / f"{name}.py").read_text(encoding="utf-8")
        assert textwrap.indent(block, "    ") in source and "  # line 2" in block
        assert "import unlearnable as ue  # line 1" in source
