"""The kinds of perturbation: what each one holds, and how it changes uint8 images."""
