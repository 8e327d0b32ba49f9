"""Perturbations by name: the pre-made ones, and the Hugging Face Hub."""
