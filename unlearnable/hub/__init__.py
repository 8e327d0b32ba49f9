"""Perturbations by name: the pre-made ones, and the Hugging Face Hub."""

CONFIG = "config.json"
REPO = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"
