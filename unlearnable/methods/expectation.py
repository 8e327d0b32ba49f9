"""Methods whose search is an expectation over transformations, and the choice of these.

EOT: Athalye et al., ICML 2018, 1707.07397.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import Tensor

from ..engine.augment import CropFlip
from ..engine.degradation import CROP_FLIP, Degradation, check_probabilities
from ..engine.run import Run
from .base import Method
from .parameters import checked


def transformations(default: Mapping[str, float] | None = None) -> Any:
    """The parameter ``augment``, with a default in addition to what the method always draws."""
    return checked(
        default, lambda name, value, norm: check_probabilities(name, value), optional=True
    )


class Expectation(Method):
    """A method with the parameter ``augment``: transformations drawn per image and search step.

    A transformation is applied first, then a crop and flip. Surrogates are trained on the same
    draws as the search.

    Attributes:
        crops: Probability of a crop and flip if ``augment`` has none.
    """

    crops: ClassVar[float] = 0.0
    later: ClassVar[tuple[str, ...]] = ("augment",)
    augment: Mapping[str, float] | None

    @property
    def _identity(self) -> dict[str, Any]:
        # What is drawn anyway is not named, so that the same draws have one digest.
        identity = super()._identity
        augment = dict(identity["parameters"].pop("augment", None) or {})
        if augment.get(CROP_FLIP) == self.crops:
            del augment[CROP_FLIP]
        if augment:
            identity["parameters"]["augment"] = augment
        return identity

    def _draw(self, run: Run, count: int, purpose: str) -> Callable[[Tensor], Tensor]:
        """New draws for ``count`` images, by numbers of their own for the purpose.

        What they give takes float images (B, C, H, W) in [0, 1] and shows them to a network.
        """
        share = (self.augment or {}).get(CROP_FLIP, self.crops)
        degradation = self._draw_degradation(run, count, purpose)
        crop = CropFlip.draw(count, run.rng(f"{purpose} crop"), share=share) if share else None

        def seen(images: Tensor) -> Tensor:
            images = images if degradation is None else degradation(images)
            return images if crop is None else crop(images)

        return seen

    def _seen(self, run: Run, images: Tensor, purpose: str) -> Tensor:
        """Images (B, C, H, W) as a network sees them: by draws of their own for the purpose."""
        return self._draw(run, len(images), purpose)(images)

    def _degraded(self, run: Run, images: Tensor) -> Tensor:
        """Images as a surrogate is trained on them that is cropped and flipped in any case."""
        degradation = self._draw_degradation(run, len(images), "train")
        return images if degradation is None else degradation(images)

    def _draw_degradation(self, run: Run, count: int, purpose: str) -> Degradation | None:
        if not self.augment or self.augment.keys() <= {CROP_FLIP}:
            return None
        return Degradation.draw(count, run.rng(f"{purpose} degradation"), self.augment)
