"""MessagePack bodies. They need the package msgpack."""

from __future__ import annotations

import re
from struct import Struct
from typing import Any, Dict, List, Optional, Tuple, Union

from ._arrays import Array, decoded_array
from ._codec import Codec, Parts
from ._errors import BadValue, Unavailable
from ._memory import bytes_of, copy
from ._reduction import check_int
from ._times import Duration, Instant, timedelta
from ._values import CONTAINERS, MAX_DEPTH, Writer, is_plain, walk

_SCALARS = {type(None), bool, int, float, str}  # the packer refuses integers beyond 64 bits
_LEVELS = 64  # levels of nesting that fit on any caller's stack
_COPIED = 1 << 16  # bytes and arrays up to this size may be copied once more
_KEPT = 1 << 20  # a packer's buffer above this size is not kept
_ARRAY, _INT, _DURATION = 1, 2, 3  # the extension types
_EXT32 = 0xC9  # an extension with four bytes of length
_LONG_BINARY = 0xC6  # binary with four bytes of length
OLDEST = (1, 0, 3)


def load_msgpack() -> Any:
    """Returns the module msgpack.

    Raises:
        Unavailable: It is missing, too old or broken. The error has a remedy.
    """
    problem = ""
    try:
        import msgpack

        version = getattr(msgpack, "version", None)
        if not isinstance(version, tuple) or not hasattr(msgpack, "unpackb"):
            problem = f"{getattr(msgpack, '__file__', 'msgpack')} is not the package msgpack"
        elif version < OLDEST:
            problem = f"msgpack {'.'.join(map(str, version))} is too old"
        else:
            return msgpack
    except ImportError as exc:
        problem = str(exc)
    except BaseException as exc:  # a broken installation
        problem = f"msgpack cannot be imported: {type(exc).__name__}: {exc}"
    from ._remedy import install

    raise Unavailable(problem, install(f"'msgpack>={'.'.join(map(str, OLDEST))}'"))


class Msgpack(Codec):
    """The codec of MessagePack bodies."""

    name = "msgpack"

    def __init__(self) -> None:
        self._module = load_msgpack()
        self._unpackb = self._module.unpackb
        # A Packer serves one caller at a time and is costly to make. A caller pops one and appends it afterwards, so no
        # other caller has it meanwhile, not even a signal handler that interrupts the first.
        self._idle: List[Any] = []

    def encode(self, value: Any) -> bytes:
        return bytes(self.encode_parts(value))

    def encode_parts(self, value: Any) -> Union[bytes, Parts]:
        try:
            packer = self._idle.pop()
        except IndexError:
            packer = self._module.Packer(datetime=True)
        body: Optional[Union[bytes, Parts]] = None
        try:
            type_ = type(value)
            if type_ in _SCALARS or (type_ in CONTAINERS and is_plain(value, _SCALARS, _COPIED, _LEVELS)):
                body = packer.pack(value)
        except (ValueError, OverflowError, RuntimeError):  # a lone surrogate; a dict that changed; RecursionError
            packer = self._module.Packer(datetime=True)
        if body is None:
            writer = _Writer(packer, self._module)
            walk(value, writer)
            body = _joined(writer.parts)
        if len(body) <= _KEPT:
            self._idle.append(packer)
        return body

    def decode(self, data: Union[bytes, bytearray, memoryview]) -> Any:
        large = len(data) > MAX_DEPTH
        try:
            if _is_late(data, large):
                self._unpackb(data, timestamp=0)  # checks each timestamp; timestamp=3 does not
            if large and data[0] == _EXT32 and len(data) == 6 + int.from_bytes(data[1:5], "big"):
                return self._extension(data[5], memoryview(data)[6:])  # the library would copy an array first
            if large and data[0] == _LONG_BINARY and len(data) == 5 + int.from_bytes(data[1:5], "big"):
                return bytes_of(memoryview(data)[5:])
            value = self._unpackb(data, timestamp=3, object_pairs_hook=_unique, ext_hook=self._extension)
            if large and _too_deep(value):
                raise BadValue(f"nested deeper than {MAX_DEPTH} levels")
        except BadValue as exc:
            raise BadValue(f"value: {exc}") from None
        except UnicodeDecodeError as exc:
            raise BadValue(f"value: bad UTF-8 in text: {exc.reason}") from None
        except Exception as exc:  # the library's errors are of many types
            raise BadValue(f"value: not MessagePack: {str(exc) or type(exc).__name__}") from None
        return value

    def _extension(self, number: int, payload: Any) -> Any:
        if number == _INT and payload:
            value = int.from_bytes(payload, "big", signed=True)
            check_int(value)
            return value
        if number == _DURATION and len(payload) == 8:
            return timedelta(int.from_bytes(payload, "big", signed=True))
        if number in (_INT, _DURATION):
            raise BadValue(f"the extension {number} with {len(payload)} bytes")
        if number != _ARRAY:
            raise BadValue(f"unknown extension {number}")
        try:
            return decoded_array(*self._array(payload))
        except BadValue:
            raise
        except Exception as exc:  # the library's errors are of many types
            raise BadValue(f"an array that is not MessagePack: {exc}") from None

    def _array(self, payload: Any) -> Tuple[Any, Any, Union[bytes, memoryview]]:
        """Returns the dtype, the shape and the data of an array's payload."""
        if len(payload) > _COPIED:  # the data is the last of the three: it need not be copied
            head = self._module.Unpacker(max_array_len=64)
            head.feed(payload[:_COPIED])
            if head.read_array_header() == 3:
                dtype, shape, at = head.unpack(), head.unpack(), head.tell()
                size = int.from_bytes(payload[at + 1 : at + 5], "big")
                if payload[at] == 0xC6 and at + 5 + size == len(payload):
                    return dtype, shape, memoryview(payload)[at + 5 :]
        parts = self._unpackb(payload, ext_hook=_no_extension, max_array_len=64)
        if type(parts) is not list or len(parts) != 3 or type(parts[2]) is not bytes:
            raise BadValue("an array that is not [dtype, shape, data]")
        return parts[0], parts[1], parts[2]


def _joined(parts: List[Any]) -> Union[bytes, Parts]:
    """Joins the parts of a body, except for large ones.

    What is written later must not be memory that the program can change meanwhile, such as an array's.
    """
    kept: List[Any] = []
    run: List[Any] = []
    for part in parts:
        if len(part) > _COPIED:
            kept += (b"".join(run), part if type(part) is bytes else copy(part))
            run = []
        else:
            run.append(part)
    kept.append(b"".join(run))
    return Parts(kept) if len(kept) > 1 else kept[0]


def _unique(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    value = dict(pairs)
    try:
        "".join(value)  # checks in C that all keys are text
    except TypeError:
        raise BadValue("a map with a key that is not text") from None
    if len(value) != len(pairs):
        raise BadValue("a map has a key twice")
    return value


def _no_extension(number: int, payload: bytes) -> Any:
    raise BadValue("an array with an extension in it")


class _Writer(Writer):
    scalars = _SCALARS
    binary = _COPIED

    def __init__(self, packer: Any, module: Any) -> None:
        self._packer = packer
        self._module = module
        self.parts: List[Any] = []

    def write_plain(self, value: Any) -> None:
        try:
            self.parts.append(self._packer.pack(value))
        except (ValueError, OverflowError):
            self._packer.reset()
            raise

    def write_special(self, value: Any) -> None:
        if type(value) is bytes:  # longer than binary
            self.parts += (_bin_header(len(value)), value)
        elif type(value) is Array:
            self._array(value)
        elif type(value) is int:
            size = (value if value >= 0 else ~value).bit_length() // 8 + 1
            self._extension(_INT, value.to_bytes(size, "big", signed=True))
        elif type(value) is Duration:
            self._extension(_DURATION, value.nanoseconds.to_bytes(8, "big", signed=True))
        elif type(value) is Instant:
            self.parts.append(self._packer.pack(self._module.Timestamp(value.seconds, value.nanoseconds)))
        else:
            self.parts.append(self._packer.pack(value))

    def _extension(self, number: int, payload: bytes) -> None:
        self.parts.append(self._packer.pack(self._module.ExtType(number, payload)))

    def _array(self, value: Array) -> None:
        head = b"\x93" + self._packer.pack(value.dtype) + self._packer.pack(value.shape) + _bin_header(len(value.data))
        size = len(head) + len(value.data)
        if size <= _COPIED:
            payload = head + bytes(value.data)
            self._extension(_ARRAY, payload)
        elif size < 1 << 32:
            self.parts += (_EXT32_HEAD.pack(_EXT32, size, _ARRAY), head, value.data)
        else:
            raise BadValue(f"{size} bytes are more than one value may have; send them in parts")

    def begin_list(self, length: int) -> None:
        self.parts.append(self._packer.pack_array_header(length))

    def begin_map(self, value: Dict[str, Any]) -> None:
        self.parts.append(self._packer.pack_map_header(len(value)))

    def key(self, key: str) -> None:
        self.parts.append(self._packer.pack(key))

    def end(self) -> None:
        pass


_EXT32_HEAD = Struct(">BIb")
_BIN8 = Struct(">BB")
_BIN16 = Struct(">BH")
_BIN32 = Struct(">BI")


def _bin_header(size: int) -> bytes:
    if size < 1 << 8:
        return _BIN8.pack(0xC4, size)
    if size < 1 << 16:
        return _BIN16.pack(0xC5, size)
    if size < 1 << 32:
        return _BIN32.pack(0xC6, size)
    raise BadValue(f"{size} bytes are more than one value may have; send them in parts")


def _is_late(data: Any, large: bool) -> bool:
    """Reports whether a timestamp may have more nanoseconds than a second.

    Raises:
        BadValue: The body is large and claims more than it has.
    """
    if not large:
        data = bytes(data)
        return b"\xff" in data and _may_be_late(data)
    late = _check_heads(data, _FEW_STEPS)  # enough if most of the body is binary or an array
    if late is not None:
        return late
    data = bytes(data) if type(data) is memoryview else data
    if _may_claim(data):
        return bool(_check_heads(data, len(data)))
    return b"\xff" in data and _may_be_late(data)


_WHOLE_SECOND = {8: 0xEE, 12: 0x3B}
"""By the length of a timestamp that has nanoseconds: the least first byte of a whole second of them. With 8 bytes, they
are the upper 30 bits."""
_LATE = ((b"\xd7\xff", 0xEE), (b"\x08\xff", 0xEE), (b"\x0c\xff", 0x3B))
"""What is in front of the nanoseconds, and that byte. A length of 8 may also be written out."""


def _may_be_late(data: bytes) -> bool:
    """Reports whether a timestamp may have more nanoseconds than a second. It may also find bytes of other values."""
    for before, least in _LATE:  # a search for bytes takes a hundredth of the time of a regular expression
        at = data.find(before)
        while at >= 0:
            if data[at + 2 : at + 3] >= bytes((least,)):
                return True
            at = data.find(before, at + 1)
    return False


_CONTAINERS = {dict, list}


def _too_deep(value: Any) -> bool:
    flat = _CONTAINERS.isdisjoint
    level = [value] if type(value) in _CONTAINERS else []
    for _ in range(MAX_DEPTH):
        inner: List[Any] = []
        for container in level:
            items = container.values() if type(container) is dict else container
            if not flat(map(type, items)):  # this check runs in C
                inner += [item for item in items if type(item) in _CONTAINERS]
        level = inner
        if not level:
            return False
    return True


# For each header, the library allocates as many elements as the header claims, if the whole body could hold so many.
# With nested headers, all these allocations exist at once: with 500 levels, about the square of the body's length. The
# headers of a valid body claim no more elements in total than the body has bytes.


def _may_claim(data: bytes) -> bool:
    """Reports whether the headers of long lists and maps could claim too much memory.

    It counts every byte that may begin such a header, also those inside of other values.
    """
    wide = narrow = 0
    for at in range(0, len(data), _PART):
        wide += data.count(b"\xdd", at, at + _PART) + data.count(b"\xdf", at, at + _PART)
        narrow += data.count(b"\xdc", at, at + _PART) + data.count(b"\xde", at, at + _PART)
        if min(wide, 1024) * len(data) + min(narrow, 1024) * min(len(data), 1 << 16) > (1 << 20) + 8 * len(data):
            return True
    return False


_PART = 1 << 16  # bytes
_FEW_STEPS = 64
_FIXSTR = b"|".join(b"%c.{%d}" % (0xA0 + size, size) for size in range(32))
_SMALL = re.compile(
    rb"(?:[\x00-\x9f\xc0\xc2\xc3\xe0-\xff]|\xcb.{8}|[\xcc\xd0].|[\xcd\xd1].{2}|[\xca\xce\xd2].{4}|[\xcf\xd3].{8}|"
    + _FIXSTR
    + rb"){1,256}",
    re.DOTALL,
)
_LENGTHS = {
    0xC4: 1,
    0xC5: 2,
    0xC6: 4,
    0xC7: 1,
    0xC8: 2,
    0xC9: 4,
    0xD9: 1,
    0xDA: 2,
    0xDB: 4,
    0xDC: 2,
    0xDD: 4,
    0xDE: 2,
    0xDF: 4,
}
_FIXEXT = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}


def _check_heads(data: Any, steps: int) -> Optional[bool]:
    """Reads the heads of all values, or of some in at most so many steps.

    Returns:
        Whether a timestamp has more nanoseconds than a second, or None if the steps did not reach the end.

    Raises:
        BadValue: The headers of the long lists and maps claim more elements than the body has bytes.
    """
    at, claimed, late = 0, 0, False
    while at < len(data):
        steps -= 1
        if steps < 0:
            return None
        small = _SMALL.match(data, at)  # many at once: numbers, short text, and headers that claim little
        if small:
            at = small.end()
            continue
        head = data[at]
        width = _LENGTHS.get(head, 0)
        length = int.from_bytes(data[at + 1 : at + 1 + width], "big") if width else _FIXEXT.get(head, 0)
        at += 1 + width
        if head >= 0xDC:
            claimed += length if head <= 0xDD else 2 * length
        elif 0xC7 <= head <= 0xC9 or 0xD4 <= head <= 0xD8:  # an extension, whose type is 0xff if it is a timestamp
            least = _WHOLE_SECOND.get(length)
            if least is not None and bytes(data[at : at + 2]) >= bytes((0xFF, least)):
                late = True
            at += 1 + length
        else:
            at += length
    if claimed > len(data):
        raise BadValue("not MessagePack: its lists and maps claim more than the body has")
    return late
