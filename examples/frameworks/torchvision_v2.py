"""torchvision's transforms v2 on tv_tensors: the original script plus the two marked lines."""

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import models, tv_tensors
from torchvision.transforms import v2

import unlearnable as ue  # line 1
from unlearnable.datasets import Shapes

AUGMENTED = v2.Compose(
    [
        v2.RandomCrop(32, padding=4),
        v2.RandomHorizontalFlip(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([0.5, 0.5, 0.5], [0.25, 0.25, 0.25]),
    ]
)


class Photos(Dataset):
    """Stands in for a dataset of your own, which gives ``tv_tensors.Image``."""

    def __init__(self, size, transforms=None):
        self.images = Shapes(size=size)
        self.transforms = transforms

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        image, label = self.images[index]
        image = tv_tensors.Image(np.asarray(image).transpose(2, 0, 1))
        return (image, label) if self.transforms is None else self.transforms(image, label)


def main(images=400, workers=2):
    torch.manual_seed(0)
    trainset = Photos(images, transforms=AUGMENTED)
    trainset = ue.LSP().fit(trainset).protect(trainset)  # line 2

    loader = DataLoader(trainset, batch_size=20, shuffle=True, num_workers=workers)
    model = models.resnet18(num_classes=10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for image, label in loader:
        loss = nn.functional.cross_entropy(model(image), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"loss {loss:.2f}")


if __name__ == "__main__":
    main()
