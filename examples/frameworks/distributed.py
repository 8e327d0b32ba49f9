"""Several processes with DistributedSampler: the original script plus the two marked lines.

Run it with ``torchrun --nproc-per-node 2 examples/frameworks/distributed.py``. All processes fit
together: each does a share of the work, and all have the same perturbation at the end.
"""

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler
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


def main(images=400, workers=2, epochs=2):
    distributed.init_process_group("gloo")  # "nccl" with a GPU for each process
    torch.manual_seed(distributed.get_rank())
    trainset = Shapes(size=images, transform=AUGMENTED)  # stands in for your own
    trainset = ue.LSP().fit(trainset).protect(trainset)  # line 2

    sampler = DistributedSampler(trainset)
    loader = DataLoader(
        trainset,
        batch_size=20,
        sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    model = DistributedDataParallel(models.resnet18(num_classes=10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        for image, label in loader:
            loss = nn.functional.cross_entropy(model(image), label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    print(f"rank {distributed.get_rank()}: loss {loss:.2f}")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
