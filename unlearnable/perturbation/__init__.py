"""The artefact: what is done to which image, and with what promise; saved, shared, loaded."""

GRANULARITIES = ("sample-wise", "class-wise")
