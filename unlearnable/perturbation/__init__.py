"""The artefact: what is done to which image, and with what promise; saved, shared, loaded."""
