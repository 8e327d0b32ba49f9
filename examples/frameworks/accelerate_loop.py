"""accelerate's ``prepare``: the original script plus the two marked lines."""

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader
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


def main(images=400, workers=2):
    torch.manual_seed(0)
    accelerator = Accelerator()
    trainset = Shapes(size=images, transform=AUGMENTED)  # stands in for your own
    trainset = ue.LSP().fit(trainset).protect(trainset)  # line 2

    loader = DataLoader(trainset, batch_size=20, shuffle=True, num_workers=workers)
    model = models.resnet18(num_classes=10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    for image, label in loader:
        loss = nn.functional.cross_entropy(model(image), label)
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
    accelerator.print(f"loss {loss:.2f}")


if __name__ == "__main__":
    main()
