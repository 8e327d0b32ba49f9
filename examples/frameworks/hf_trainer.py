"""Hugging Face's ``datasets`` and ``Trainer``: the original script plus the two marked lines.

Items stay what ``with_transform`` makes of them. If ``map``, ``filter`` or ``push_to_hub`` have to
follow, ``protected.to_hf_dataset()`` gives a ``datasets.Dataset`` again.
"""

import tempfile

import torch
from datasets import ClassLabel, Dataset, Features, Image
from torchvision import transforms
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

import unlearnable as ue  # line 1
from unlearnable.datasets import Shapes

AUGMENTED = transforms.Compose(
    [
        transforms.RandomCrop(32, padding=4),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize([0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
    ]
)


def generated(size):
    """Stands in for ``load_dataset("owner/name", split="train")``."""
    shapes = Shapes(size=size)
    columns = {"image": [image for image, _ in shapes], "label": shapes.targets}
    features = Features({"image": Image(), "label": ClassLabel(names=shapes.classes)})
    return Dataset.from_dict(columns, features=features)


def square(row):
    return {"image": row["image"].resize((32, 32))}


def augment(batch):
    pixels = [AUGMENTED(image.convert("RGB")) for image in batch["image"]]
    return {"pixel_values": pixels, "labels": batch["label"]}


def collate(rows):
    pixels = torch.stack([row["pixel_values"] for row in rows])
    return {"pixel_values": pixels, "labels": torch.tensor([row["labels"] for row in rows])}


def main(images=400, workers=2):
    torch.manual_seed(0)
    trainset = generated(images).map(square).with_transform(augment)
    trainset = ue.LSP().fit(trainset).protect(trainset)  # line 2

    model = ViTForImageClassification(
        ViTConfig(
            image_size=32,
            patch_size=8,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
            num_labels=10,
        )
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=1,
            per_device_train_batch_size=20,
            learning_rate=1e-3,
            dataloader_num_workers=workers,
            remove_unused_columns=False,
            save_strategy="no",
            report_to="none",
        )
        trainer = Trainer(model, arguments, train_dataset=trainset, data_collator=collate)
        print(f"loss {trainer.train().training_loss:.2f}")


if __name__ == "__main__":
    main()
