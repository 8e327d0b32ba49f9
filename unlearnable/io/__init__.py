"""Files: written whole or not at all, read strictly, and nothing in them executed."""
