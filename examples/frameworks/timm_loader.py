"""timm's ``create_loader``, which sets the transform: the original script plus the two lines."""

import timm
import torch
from timm.data import create_loader
from timm.optim import create_optimizer_v2
from torch import nn

import unlearnable as ue  # line 1
from unlearnable.datasets import Shapes


def main(images=400, workers=2, use_prefetcher=True):
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trainset = Shapes(size=images)  # stands in for your own, such as create_dataset(...)
    trainset = ue.LSP().fit(trainset).protect(trainset)  # line 2

    loader = create_loader(
        trainset,
        input_size=(3, 32, 32),
        batch_size=20,
        is_training=True,
        auto_augment="rand-m9-mstd0.5-inc1",
        re_prob=0.25,
        num_workers=workers,
        use_prefetcher=use_prefetcher,
        device=device,
    )
    model = timm.create_model("resnet18", num_classes=10).to(device)
    optimizer = create_optimizer_v2(model, opt="sgd", lr=0.01, momentum=0.9)
    for image, label in loader:
        image, label = image.to(device), label.to(device)
        loss = nn.functional.cross_entropy(model(image), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"loss {loss:.2f}")


if __name__ == "__main__":
    main()
