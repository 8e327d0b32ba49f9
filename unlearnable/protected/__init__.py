"""A dataset and a perturbation as one torchvision dataset: read, measured, exported, verified."""
