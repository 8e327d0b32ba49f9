"""Perturbations from the files that other programs write."""

VALUE_FORMATS = ("levels", "unit", "images")  # what the values in a file are
