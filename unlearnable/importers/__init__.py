"""Perturbations from the files that other programs write."""
