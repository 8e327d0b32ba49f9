"""The errors of this package that no built-in type describes."""

from __future__ import annotations


class NotFittedError(ValueError, AttributeError):
    """A method was asked for what only ``fit`` can give."""


class UnknownImageError(LookupError):
    """An image has no perturbation: it was not among the images that were fitted."""


class ArtefactError(ValueError):
    """A saved artefact is missing a part, damaged, or of a format that this version cannot read."""


class FormatVersionError(ArtefactError):
    """A saved artefact is sound, but of a format version for another release of this package."""


class HubError(RuntimeError):
    """The Hugging Face Hub could not give or take what was asked for."""


class Terminated(KeyboardInterrupt):
    """SIGTERM asked the command line to end: as Ctrl-C does, with an exit status of its own."""
