"""One numpy array out of a pickle: the only place of this package that opens one.

Nothing that a pickle names is looked up. Its opcodes are first held against those that numpy writes
for an array; what they call then are stand-ins, which note down what they are given.
"""

from __future__ import annotations

import mmap
import pickle
import pickletools
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ArtefactError

_MOST_OPCODES = 200  # numpy needs about 40
# Without dicts and lists, whose items could be many, and without what makes or calls by other ways
# than a name and REDUCE. BUILD can then set no attribute: for that it takes a dict.
_OPCODES = {
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "GLOBAL", "STACK_GLOBAL", "REDUCE",
    "BUILD", "MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "EMPTY_TUPLE", "TUPLE",
    "TUPLE1", "TUPLE2", "TUPLE3", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2",
    "LONG1", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES",
    "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip


class RawArray(NamedTuple):
    """An array as a pickle describes it, none of it checked.

    Attributes:
        shape: A tuple, if sound.
        dtype: Of the array, as numpy writes it, such as ``"|i1"``.
        fortran: Whether the first index varies fastest.
        data: Its bytes.
    """

    shape: Any
    dtype: str
    fortran: bool
    data: Any


class _Dtype:
    def __init__(self, code: Any, *_: Any) -> None:
        self.code, self.order = code, "|"

    def __setstate__(self, state: Any) -> None:
        _, self.order, subtype, names, fields, *_ = state
        if (subtype, names, fields) != (None, None, None):
            raise pickle.UnpicklingError("its array holds records")


class _Array:
    found: RawArray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.found = RawArray(shape, f"{dtype.order}{dtype.code}", bool(fortran), data)


class _NDArray:
    __slots__ = ()


def _reconstruct(subtype: Any, *_: Any) -> _Array:
    if not isinstance(subtype, _NDArray):
        raise pickle.UnpicklingError("its array is of a subclass")
    return _Array()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", data))
    return array


def _encode(text: Any, encoding: Any) -> bytes:  # how protocol 2 writes bytes
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("its bytes are encoded")
    return text.encode("latin1")


_STAND_INS = {
    "numpy.ndarray": _NDArray(),
    "numpy.dtype": _Dtype,
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy._core.multiarray._reconstruct": _reconstruct,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy._core.numeric._frombuffer": _from_buffer,
    "_codecs.encode": _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _STAND_INS.get(f"{module}.{name}")
        if found is None:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return found


def read_pickled_array(path: Path) -> RawArray:
    """What a pickle of one numpy array holds.

    Raises:
        ArtefactError: It is no pickle, or it holds or does anything else; nothing of it has run.
    """
    try:
        # A mapped file gives no more bytes than it has, whatever length a pickle claims.
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _check_opcodes(data)
            data.seek(0)
            found = _Unpickler(data).load()
        if not isinstance(found, _Array) or found.found is None:
            raise pickle.UnpicklingError("it holds something else")
    except Exception as error:  # a foreign file may go wrong in any way
        raise ArtefactError(
            f"expected a pickle of one numpy array and nothing else in {path}: {error}; nothing "
            f"that it names was run. If you trust the file, save its array with numpy.save"
        ) from error
    return found.found


def _check_opcodes(data: Any) -> None:
    for number, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if opcode.name not in _OPCODES or number > _MOST_OPCODES:
            raise pickle.UnpicklingError(f"its opcode {number} is {opcode.name}")
        if opcode.name.endswith("PUT") and int(argument or 0) > _MOST_OPCODES:
            raise pickle.UnpicklingError(f"its memo has a place {argument}")
