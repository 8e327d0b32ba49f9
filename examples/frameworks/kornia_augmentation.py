"""kornia's augmentation of batches, after the loader: the original script plus the two lines."""

import kornia.augmentation as K
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import models, transforms

import unlearnable as ue  # line 1
from unlearnable.datasets import Shapes

AUGMENTED = nn.Sequential(
    K.RandomCrop((32, 32), padding=4),
    K.RandomHorizontalFlip(),
    K.ColorJiggle(0.2, 0.2, 0.2, 0.1),
    K.Normalize(torch.full((3,), 0.5), torch.full((3,), 0.25)),
)


def main(images=400, workers=2):
    torch.manual_seed(0)
    trainset = Shapes(size=images, transform=transforms.ToTensor())  # stands in for your own
    trainset = ue.LSP().fit(trainset).protect(trainset)  # line 2

    loader = DataLoader(trainset, batch_size=20, shuffle=True, num_workers=workers)
    model = models.resnet18(num_classes=10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for image, label in loader:
        loss = nn.functional.cross_entropy(model(AUGMENTED(image)), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"loss {loss:.2f}")


if __name__ == "__main__":
    main()
