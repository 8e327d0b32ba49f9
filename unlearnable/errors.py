"""The errors of this package that no built-in type describes."""

from __future__ import annotations


class NotFittedError(ValueError, AttributeError):
    """A method was used before ``fit`` was called."""


class UnknownImageError(LookupError):
    """An image has no perturbation, because it was not among the fitted images."""


class ArtefactError(ValueError):
    """A saved artefact is incomplete, damaged, or in a format that this version cannot read."""


class FormatVersionError(ArtefactError):
    """A saved artefact is valid, but its format version belongs to another release."""


class HubError(RuntimeError):
    """The Hugging Face Hub could not deliver or accept what was requested."""


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP asked the command line to stop; like Ctrl-C, with another exit status."""
