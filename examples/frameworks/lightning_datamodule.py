"""Lightning with a DataModule: the original script plus the two marked lines.

With several processes, each calls ``setup``. Fit once with ``unlearnable fit``, and write
``ue.ProtectedDataset(trainset, ue.Perturbation.from_pretrained(folder))`` as line 2.
"""

import lightning
import torch
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


class Images(lightning.LightningDataModule):
    def __init__(self, images, workers):
        super().__init__()
        self.images, self.workers = images, workers

    def setup(self, stage):
        trainset = Shapes(size=self.images, transform=AUGMENTED)  # stands in for your own
        trainset = ue.LSP().fit(trainset).protect(trainset)  # line 2
        self.trainset = trainset

    def train_dataloader(self):
        return DataLoader(
            self.trainset,
            batch_size=20,
            shuffle=True,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
        )


class Classifier(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.network = models.resnet18(num_classes=10)

    def training_step(self, batch, _):
        image, label = batch
        loss = nn.functional.cross_entropy(self.network(image), label)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)


def main(images=400, workers=2):
    lightning.seed_everything(0, workers=True)
    trainer = lightning.Trainer(
        max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.fit(Classifier(), datamodule=Images(images, workers))
    print(f"loss {trainer.callback_metrics['loss']:.2f}")


if __name__ == "__main__":
    main()
