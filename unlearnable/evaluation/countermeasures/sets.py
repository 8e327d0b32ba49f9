"""Sets of countermeasures by name; which those are that know the method is in ``adaptive``."""

from __future__ import annotations

# Everybody's: what costs a trainer no knowledge and little time.
STANDARD_SET: tuple[str, ...] = (
    "none",
    "grayscale",
    "grayscale-everywhere",
    "jpeg-10",
    "jpeg-30",
    "bit-depth-2",
    "low-pass",
    "displacement",
    "channel-normalization",
    "histogram-equalization",
    "colour-whitening",
    "colour-jitter",
    "shift-noise-8",
    "cutmix",
    "ueraser-lite",
    "adversarial-training-4-steps-3",
    "orthogonal-projection",
    "jpeg-10+grayscale",
    "jpeg-10+grayscale-everywhere",
    "channel-normalization+jpeg-10",
    "unprotected-20",
)
# And what takes several times as long, is a milder or another form of those, or needs clean images.
STRONG_SET: tuple[str, ...] = (
    *STANDARD_SET,
    "jpeg-50",
    "jpeg-90",
    "gaussian-blur",
    "median-filter",
    "cutout",
    "mixup",
    "randaugment",
    "hue-shift",
    "ueraser-max",
    "adversarial-training-2",
    "adversarial-training-4",
    "adversarial-training-6",
    "adversarial-training-8",
    "adversarial-training-4-shift-25",
    "channel-normalization+jpeg-10+grayscale",
    "staged-training",
    "fine-tuning",
    "clean-part-only-20",
    "leaked-pairs-500",
)
ADAPTIVE = "adaptive"
SETS: dict[str, tuple[str, ...]] = {"standard": STANDARD_SET, "strong": STRONG_SET}
COUNTERMEASURES = STRONG_SET  # all that are in a set whatever the perturbation
