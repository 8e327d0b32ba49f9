"""The names that options take and help lists, at once: nothing here imports torch.

What is defined elsewhere, in modules that do, stands here a second time, and a test compares both.
"""

from __future__ import annotations

from ..methods import MODULES

METHOD_NAMES = [name.lower() for name in MODULES]
DATASET_NAMES = {
    "cifar10": "CIFAR10", "cifar100": "CIFAR100", "mnist": "MNIST",
    "fashion-mnist": "FashionMNIST", "svhn": "SVHN", "stl10": "STL10",
}  # as typed -> name of torchvision's class  # fmt: skip
NETWORK_NAMES = (
    "resnet9", "resnet18", "resnet50", "vgg16", "densenet121", "mobilenetv2", "senet18",
    "wrn28-10", "vit-small", "tiny", "tiny-resnet",
)  # fmt: skip
VISIBILITY_NAMES = ("low", "medium", "high", "full")
RECIPE_NAMES = ("standard", "fast")
EXPORT_NAMES = ("cifar", "npz", "parquet", "png", "webdataset", "webp")
COUNTERMEASURE_NAMES = (
    "none", "grayscale", "jpeg-10", "jpeg-30", "jpeg-50", "jpeg-90", "bit-depth-2",
    "gaussian-blur", "median-filter", "displacement", "cutout", "cutmix", "mixup", "randaugment",
    "ueraser-max", "adversarial-training-4", "adversarial-training-8", "orthogonal-projection",
    "fine-tuning", "unprotected-20",
)  # fmt: skip
