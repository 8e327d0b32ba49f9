"""One numpy array out of a pickle: the only place of this package that opens one.

Nothing that a pickle names is ever looked up: names on a short list become labels, and calls of
them records of the call, from which the array is put together; every other name is an error. So
is, before anything is loaded, every opcode but those that numpy writes for an array.
"""

from __future__ import annotations

import mmap
import pickle
import pickletools
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ArtefactError

_MAX_OPCODES = 200  # numpy needs about 40
# No dicts and sets, which hash tuples in tuples forever; calls by a name and REDUCE only.
_OPCODES = {
    "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "GLOBAL", "STACK_GLOBAL", "REDUCE",
    "BUILD", "MEMOIZE", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "EMPTY_TUPLE", "TUPLE",
    "TUPLE1", "TUPLE2", "TUPLE3", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2",
    "LONG1", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES",
    "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
_NAMES = (
    "numpy.ndarray",
    "numpy.dtype",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.core.numeric._frombuffer",
    "numpy._core.numeric._frombuffer",
    "_codecs.encode",  # how protocol 2 writes bytes
)


class RawArray(NamedTuple):
    """An array as a pickle describes it, none of it checked."""

    shape: Any  # a tuple, if sound
    dtype: str  # as numpy writes it, such as "|i1"
    fortran: bool  # whether the first index varies fastest
    data: Any  # bytes, if sound


class _Call:
    """A call that a pickle asks for, and the state that it then sets; neither is carried out."""

    def __init__(self, name: str, arguments: tuple[Any, ...]) -> None:
        self.name, self.arguments, self.state = name, arguments, None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Name:
    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *arguments: Any) -> _Call:
        return _Call(self.name, arguments)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> _Name:
        if f"{module}.{name}" not in _NAMES:
            raise pickle.UnpicklingError(f"it names {module:.80}.{name:.80}")
        return _Name(f"{module}.{name}".removeprefix("numpy.core.").removeprefix("numpy._core."))


def read_pickled_array(path: Path) -> RawArray:
    """What a pickle of one numpy array holds; ``ArtefactError`` for any other, which never runs."""
    try:
        # A mapped file gives no more bytes than it has, whatever length a pickle claims.
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _check_opcodes(data)
            data.seek(0)
            return _array(_Unpickler(data).load())
    except Exception as error:  # a foreign file may go wrong in any way
        raise ArtefactError(
            f"expected a pickle of one numpy array and nothing else in {path}: {error}; nothing "
            f"that it names was run. If you trust the file, save its array with numpy.save"
        ) from error


def _check_opcodes(data: Any) -> None:
    """Refuses opcodes of other things, and what takes much memory: many, or a distant memo."""
    for number, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        place = int(argument or 0) if opcode.name.endswith("PUT") else 0
        if opcode.name not in _OPCODES or max(number, place) > _MAX_OPCODES:
            raise pickle.UnpicklingError(f"its opcode {number} is {opcode.name} {place}")


def _array(found: Any) -> RawArray:
    match found:
        case _Call(
            name="multiarray._reconstruct",
            arguments=(_Name(name="numpy.ndarray"), *_),
            state=(_, shape, dtype, fortran, data),
        ):
            return RawArray(shape, _dtype(dtype), bool(fortran), _bytes(data))
        case _Call(
            name="numeric._frombuffer",
            arguments=(data, dtype, shape, ("C" | "F") as order, *_)
            | (data, dtype, shape, "K" as order, (0, 3, 1, 2)),  # NCHW seen in NHWC: as it lies
        ):
            return RawArray(shape, _dtype(dtype), order == "F", data)
    raise pickle.UnpicklingError("it holds something else")


def _dtype(found: Any) -> str:
    match found:
        case _Call(name="numpy.dtype", arguments=(str(code), *_), state=state):
            match state or (3, "|", None, None, None, -1, -1, 0):
                case (_, str(order), None, None, None, _, _, _):
                    return order + code
    raise pickle.UnpicklingError("its array holds records")


def _bytes(found: Any) -> Any:
    match found:
        case _Call(name="_codecs.encode", arguments=(str(text), "latin1")):
            return text.encode("latin1")
    return found
