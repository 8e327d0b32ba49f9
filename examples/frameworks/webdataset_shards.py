"""webdataset's shards, written and read for training: the original script plus the two lines.

``protected.export(folder, "webdataset")`` writes such shards too, with a manifest beside them.
"""

import tempfile
from pathlib import Path

import torch
import webdataset as wds
from torch import nn
from torchvision import models, transforms

import unlearnable as ue  # line 1
from unlearnable.datasets import Shapes

AUGMENTED = transforms.Compose(
    [
        transforms.RandomCrop(32, padding=4),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize([0.5, 0.5, 0.5], [0.25, 0.25, 0.25]),
    ]
)


def write_shards(dataset, folder):
    with wds.ShardWriter(f"{folder}/train-%04d.tar", maxcount=100, verbose=0) as shards:
        for index, (image, label) in enumerate(dataset):
            shards.write({"__key__": f"{index:06d}", "png": image, "cls": label})


def train(folder, workers):
    files = sorted(str(path) for path in Path(folder).glob("*.tar"))
    dataset = wds.WebDataset(files, shardshuffle=False, empty_check=False).shuffle(100, seed=0)
    dataset = dataset.decode("pil").to_tuple("png", "cls").map_tuple(AUGMENTED, int)
    loader = wds.WebLoader(dataset.batched(20), batch_size=None, num_workers=workers)
    model = models.resnet18(num_classes=10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for image, label in loader:
        loss = nn.functional.cross_entropy(model(image), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"loss {loss:.2f}")


def main(images=400, workers=2):
    torch.manual_seed(0)
    trainset = Shapes(size=images)  # stands in for your own
    trainset = ue.LSP().fit(trainset).protect(trainset)  # line 2
    with tempfile.TemporaryDirectory() as folder:
        write_shards(trainset, folder)
        train(folder, workers)


if __name__ == "__main__":
    main()
