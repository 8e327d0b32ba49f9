"""Any map-style image dataset as raw pixels, labels and one key per image."""
