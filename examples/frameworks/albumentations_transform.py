"""albumentations in a custom dataset: the original script plus the two marked lines."""

import albumentations as A
import numpy as np
import torch
from albumentations.pytorch import ToTensorV2
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import models

import unlearnable as ue  # line 1
from unlearnable.datasets import Shapes


class Photos(Dataset):
    """Stands in for a dataset of your own, which calls ``transform(image=array)``."""

    def __init__(self, size, transform=None):
        self.images = Shapes(size=size)
        self.transform = transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        image, label = self.images[index]
        image = np.asarray(image)
        if self.transform is not None:
            image = self.transform(image=image)["image"]
        return image, label


def main(images=400, workers=2):
    torch.manual_seed(0)
    augmented = A.Compose(
        [
            A.RandomCrop(28, 28),
            A.HorizontalFlip(p=0.5),
            A.RandomBrightnessContrast(p=0.5),
            A.Normalize([0.5, 0.5, 0.5], [0.25, 0.25, 0.25]),
            ToTensorV2(),
        ],
        seed=0,
    )
    trainset = Photos(images, transform=augmented)
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
