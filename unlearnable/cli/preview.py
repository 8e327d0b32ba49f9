"""The command ``preview``: what a photo will look like, before anything is learned."""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..io.files import write_bytes
from .choices import VISIBILITY_NAMES

if TYPE_CHECKING:
    from PIL import Image

    from ..data.image import Pixels
    from ..perturbation.perturbation import Perturbation

_LEARNED = 224  # pixels, as photos are learned at
_TILE = 360  # pixels of a shown part of the photo
_TRIED = 8  # places along each axis that are compared for it
_AMPLIFY = 8
_GAP, _LINE = 8, 20
_MADE_BY = "unlearnable preview"  # recorded in the picture, so that only such ones are replaced
_HEADINGS = ("before", "after", f"change, amplified {_AMPLIFY} times")


def preview(args: argparse.Namespace) -> None:
    """Show a photo before and after protection, at each visibility, in one picture."""
    from PIL.PngImagePlugin import PngInfo

    from ..data.image import pixels_of
    from ..data.photo import load_photo
    from ..protected.metrics import compare
    from .terminal import aligned, quoted, show

    out = Path(args.out)
    if not Path(args.photo).is_file():
        got = f"{args.photo}, which does not exist; check the spelling"
        if Path(args.photo).is_dir():
            got = f"the folder {args.photo}; pass one of its photos"
        raise ValueError(f"expected the file of a photo, got {got}")
    if out.suffix.lower() != ".png":
        raise ValueError(f"expected --out to end in .png, got {args.out}")
    if out.exists() and out.resolve() == Path(args.photo).resolve():
        raise ValueError(
            f"expected --out to differ from the photo's own file, got {args.out}; choose "
            f"another name"
        )
    if out.exists() and not _is_preview(out):
        raise FileExistsError(
            f"expected a new file or an earlier preview to write to, got {out}, which is neither; "
            f"choose another name with --out"
        )
    pixels = pixels_of(load_photo(args.photo))
    if args.perturbation is None:
        perturbation, what = _random(pixels, args.epsilon)
        row: Any = 0
    else:
        perturbation, row, what = _given(args.perturbation, pixels)
    part = _place(perturbation, pixels)
    lines, figures, words = [], {}, {}
    masked = any(part.has_rows for part in perturbation.parts)
    for name in VISIBILITY_NAMES if masked else VISIBILITY_NAMES[-1:]:
        after = perturbation.with_visibility(name).apply(pixels, row, full_size=True)
        found = compare(pixels, after, similarity=args.json)  # which people are not shown
        figures[name] = (
            f"mean change {found.mean:.2f}/255, largest {found.linf}/255, PSNR {found.psnr:.1f} "
            f"dB, SSIM {found.ssim:.3f}"
        )
        words[name] = (
            f"pixels change by {found.mean:.1f} of 255 brightness levels on average, and by "
            f"{found.linf} at most"
        )
        lines.append((f"{name}: {words[name]}", pixels[part], after[part]))
    picture = _picture(what, lines)
    encoded, info = io.BytesIO(), PngInfo()
    info.add_text("Software", _MADE_BY)
    picture.save(encoded, "png", pnginfo=info)
    write_bytes(out, encoded.getvalue())
    said = (
        f"Open {quoted(str(out))}: it shows part of the photo before, after, and the change "
        f"(amplified {_AMPLIFY} times), for each --visibility.\n"
        f"The change shown is {what}.\n"
        + aligned([[f"  {name}", text] for name, text in words.items()])
    )
    show(args, {"picture": str(out), "shown": what, **figures}, None if args.json else said)


def _is_preview(path: Path) -> bool:
    """Whether a file was written by this command."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.info.get("Software") == _MADE_BY
    except Exception:  # Pillow's plugins raise errors of any type on damaged files
        return False


def _random(pixels: Pixels, epsilon: float) -> tuple[Perturbation, str]:
    """A row of the whole budget with random signs, in place of one that is still to be learned."""
    import math

    import numpy as np

    from ..perturbation.perturbation import Perturbation
    from ..perturbation.summary import format_epsilon

    most = math.floor(255 * epsilon + 1e-6)
    if not 1 <= most <= 127:
        got = f"{epsilon:g}" if epsilon >= 1 else format_epsilon(epsilon)
        got += f"; did you mean {got}/255?" if 1 <= epsilon <= 127 else ""
        raise ValueError(f"expected --epsilon from 1/255 to 127/255, got {got}")
    side = min(_LEARNED, *pixels.shape[1:])
    signs = np.random.default_rng(0).integers(0, 2, (1, len(pixels), side, side), np.int8)
    config = {
        "method": "random signs",
        "kind": "additive",
        "granularity": "class-wise",
        "epsilon": epsilon,
        "norm": "Linf",
        "image_shape": [len(pixels), side, side],
        "classes": None,
        "num_classes": 1,
        "source": {"name": "preview", "images": 1},
        "preprocessing": {"fit": [side, side]},
    }
    what = (
        f"a stand-in: random changes of up to {most} of 255 levels, about as strong as a learned "
        f"one"
    )
    return Perturbation((2 * signs - 1) * np.int8(most), config), what


def _given(name: str, pixels: Pixels) -> tuple[Perturbation, Any, str]:
    """A saved perturbation, and what of it is shown on the photo."""
    from ..errors import UnknownImageError
    from ..hub.catalogue import computed
    from ..perturbation.perturbation import Perturbation

    entry = computed(name)  # beside its network are a few rows
    perturbation = Perturbation.from_pretrained(name if entry is None else entry.folder)
    perturbation.check_full_size()
    try:
        row = perturbation.find(pixels, 0)
        whose = "this photo" if perturbation.keyed else "photos of its first folder"
    except UnknownImageError:
        row, whose = (
            perturbation._kind.example(0),
            "its first photo, because it was not made for this one",
        )
    return perturbation, row, f"what {Path(name).name} holds for {whose}"


def _place(perturbation: Perturbation, pixels: Pixels) -> Any:
    """The part of the photo to show: the one whose weights differ most, smooth beside texture."""
    import itertools

    import numpy as np

    from ..perturbation.visibility import VisibilityMask

    height, width = pixels.shape[1:]
    shown = VisibilityMask("low").on(pixels[None])
    sides = min(_TILE, height), min(_TILE, width)
    tops, lefts = (
        np.unique(np.linspace(0, whole - side, _TRIED).astype(int)).tolist()
        for whole, side in zip((height, width), sides, strict=True)
    )

    def spread(place: tuple[int, int]) -> float:
        weights = shown.weights(slice(place[0], place[0] + sides[0]))
        return float(weights[:, :, place[1] : place[1] + sides[1]].std())

    top, left = max(itertools.product(tops, lefts), key=spread)
    return np.s_[:, top : top + sides[0], left : left + sides[1]]


def _picture(what: str, lines: list[tuple[str, Pixels, Pixels]]) -> Image.Image:
    from PIL import Image, ImageDraw, ImageFont

    from ..data.image import to_pil
    from ..protected.figures import triple

    height, width = lines[0][1].shape[1:]
    across = max(3 * (width + _GAP) + _GAP, 640)
    picture = Image.new(
        "RGB", (across, 2 * _LINE + len(lines) * (height + _LINE + _GAP) + _GAP), "white"
    )
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(12)
    draw.text((_GAP, _LINE // 2), what, "black", font, anchor="lm")
    lefts = [_GAP + column * (width + _GAP) for column in range(3)]
    for left, heading in zip(lefts, _HEADINGS, strict=True):
        draw.text((left, _LINE + _LINE // 2), heading, "black", font, anchor="lm")
    top = 2 * _LINE
    for caption, before, after in lines:
        draw.text((_GAP, top + _LINE // 2), caption, "black", font, anchor="lm")
        clean, change, shown = triple(before, after, amplify=_AMPLIFY)
        for left, tile in zip(lefts, (clean, shown, change), strict=True):
            picture.paste(to_pil(tile), (left, top + _LINE))
        top += height + _LINE + _GAP
    return picture
