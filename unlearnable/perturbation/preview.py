"""Examples of what is done, amplified: a small Parquet file that the Hub's viewer shows."""

from __future__ import annotations

import io
import json
from typing import NamedTuple

import numpy as np

from ..data.image import Pixels, to_pil
from ..io.markdown import printable
from ..io.png import png_file
from .kinds.base import Kind, RowRef
from .kinds.stack import parts_of

PREVIEW = "preview/preview.parquet"  # in the repository
GAIN = 16
_ROWS, _SIDE = 16, 48  # that many pieces of 48x48 pixels have 108 KiB before compression


class Preview(NamedTuple):
    """A Parquet file of pictures and their class names."""

    content: bytes
    rows: int
    num_bytes: int  # in memory


def preview_of(kind: Kind) -> Preview | None:
    """A preview (for a stack, of its first part); None if the package pyarrow is not installed.

    It shows the effect on a grey canvas and contains no image of any dataset.
    """
    try:
        import pyarrow
        from pyarrow.parquet import write_table
    except ImportError:
        return None
    part = parts_of(kind)[0]
    names = part.config["classes"]
    pictures, classes = [], []
    for label, row in _examples(part):
        picture = png_file(to_pil(_amplified(part, row)))
        pictures.append({"bytes": picture, "path": None})
        classes.append(str(label) if names is None else printable(names[label]))
    features = {
        "perturbation": {"_type": "Image"},
        "class": {"dtype": "string", "_type": "Value"},
    }
    image = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    schema = pyarrow.schema(
        {"perturbation": image, "class": pyarrow.string()},
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    table = pyarrow.table({"perturbation": pictures, "class": classes}, schema=schema)
    file = io.BytesIO()
    write_table(table, file)
    return Preview(file.getvalue(), len(classes), table.nbytes)


def _examples(kind: Kind) -> list[tuple[int, RowRef]]:
    """Class and row of one example of each class, for the first classes."""
    if kind.keyed:
        labels, places = np.unique(kind.tensors["labels"], return_index=True)
        pairs = zip(labels.tolist(), places.tolist(), strict=True)
    else:
        pairs = zip(range(kind.num_classes), range(kind.num_classes), strict=True)
    return [(label, kind.example(place)) for label, place in list(pairs)[:_ROWS]]


def _amplified(kind: Kind, row: RowRef) -> Pixels:
    """The change of the canvas around grey; of a large one, a piece with the largest change."""
    canvas = kind.canvas()
    change = kind.apply(canvas[None], [row])[0].astype(np.int16) - canvas
    peak = np.unravel_index(np.abs(change).sum(0).argmax(), change.shape[1:])
    for axis, (at, side) in enumerate(zip(peak, change.shape[1:], strict=True), 1):
        start = max(0, min(int(at) - _SIDE // 2, side - _SIDE))
        change = change.take(range(start, min(side, start + _SIDE)), axis)
    return np.clip(128 + GAIN * change, 0, 255).astype(np.uint8)
