"""The frame layer: byte source, stream header, frames and their digests (format sections 1 to 4).

Everything is read strictly forward, one frame at a time, in the order the format asks for: digest
of the header, bounds of its fields, digest of the payload. What a payload means is not known here.
"""

from struct import Struct

from damage import Damage
from xxh3 import xxh3_64

HEADER_MAGIC = b'\x89CKP\r\n\x1a\n'
HEADER_BYTES = 128
MAJOR_VERSION = 1
CREATED_MAX = 1 << 53
FRAME_HEADER_BYTES = 56
PAYLOAD_BYTES_MAX = 1_114_112

CONTEXT_OPEN = 0x00000001
CONTEXT_CLOSE = 0x00000002
TAG = 0x00000003
TAG_MORE = 0x00000004
REGION_TABLE = 0x00000010
ZERO_RUN = 0x00000011
PAGE_BLOCK = 0x00000012
PARENT_RUN = 0x00000014
BLOCK_INDEX = 0x80000013
END = 0x00000020
INDEX = 0x80000021
OPTIONAL_BIT = 0x80000000

FRAME_NAMES = {
    CONTEXT_OPEN: 'CONTEXT_OPEN',
    CONTEXT_CLOSE: 'CONTEXT_CLOSE',
    TAG: 'TAG',
    TAG_MORE: 'TAG_MORE',
    REGION_TABLE: 'REGION_TABLE',
    ZERO_RUN: 'ZERO_RUN',
    PAGE_BLOCK: 'PAGE_BLOCK',
    PARENT_RUN: 'PARENT_RUN',
    BLOCK_INDEX: 'BLOCK_INDEX',
    END: 'END',
    INDEX: 'INDEX',
}

_HEADER = Struct('<8sHHI16s16sQQ32sQ16sQ')
_FRAME = Struct('<IIQQQQQQ')
_BOUND_BYTES = 48
_BINDING_TAIL = Struct('<QQ')


def pad8(count):
    return (count + 7) & ~7


class Source:
    """A binary file read forward, with the stream offset of the next byte."""

    def __init__(self, file):
        self._file = file
        self.offset = 0

    def read(self, count, what, frame=None):
        """Exactly `count` bytes; `what` names the structure they belong to."""
        data = self._file.read(count)
        while len(data) < count:
            more = self._file.read(count - len(data))
            if not more:
                at = self.offset + len(data)
                raise Damage(f'truncated: the stream ends inside {what}', at, frame)
            data += more
        self.offset += count
        return data

    def at_end(self):
        """True behind the last byte. Consumes one byte when it is not, so call it last."""
        return not self._file.read(1)


class StreamHeader:
    """The 128 bytes every stream starts with. Identifiers stay bytes; `raw` goes into the root."""

    def __init__(self, raw):
        (magic, self.major, self.minor, header_bytes, self.uuid, self.parent, self.epoch, flags,
         self.parent_root, self.created, reserved, digest) = _HEADER.unpack(raw)
        self.raw = raw
        if magic != HEADER_MAGIC:
            raise Damage('stream header: not the magic of a checkpoint', 0)
        if digest != xxh3_64(raw[:120]):
            raise Damage('stream header: digest mismatch', 120)
        if self.major != MAJOR_VERSION:
            raise Damage(f'stream header: unsupported major version {self.major}', 8)
        if header_bytes != HEADER_BYTES:
            raise Damage(f'stream header: {header_bytes} header bytes instead of 128', 12)
        if flags != 0:
            raise Damage('stream header: flags are not zero', 56)
        if reserved != bytes(16):
            raise Damage('stream header: reserved bytes are not zero', 104)
        if not any(self.uuid):
            raise Damage('stream header: a UUID of zeros', 16)
        if self.created >= CREATED_MAX:
            raise Damage('stream header: a creation time of 2^53 or later', 96)
        if self.epoch == 0 and any(self.parent):
            raise Damage('stream header: epoch 0 with a parent', 48)
        if self.epoch != 0 and not any(self.parent):
            raise Damage(f'stream header: epoch {self.epoch} without a parent', 48)
        if any(self.parent_root) != any(self.parent):
            raise Damage('stream header: a parent and a root digest belong together', 64)
        if self.minor == 0 and any(self.parent):
            raise Damage('stream header: minor version 0 with a parent', 10)


class Frame:
    """One frame whose two digests matched. `payload` is without the padding."""

    __slots__ = ('type', 'arg0', 'arg1', 'payload', 'offset', 'sequence', 'header_digest')

    @property
    def name(self):
        return FRAME_NAMES.get(self.type, f'frame type 0x{self.type:08x}')

    @property
    def end(self):
        """Offset of the first byte behind this frame."""
        return self.offset + FRAME_HEADER_BYTES + pad8(len(self.payload))

    def damage(self, what):
        return Damage(f'{self.name}: {what}', self.offset, self.sequence)


class FrameReader:
    """Reads the stream header at once, then frames by `next()`."""

    def __init__(self, source):
        self._source = source
        self.header = StreamHeader(source.read(HEADER_BYTES, 'the stream header'))
        self._sequence = 0

    def next(self, limit=None):
        """The next frame. `limit` is the offset no byte of it may reach, once END has told it."""
        offset = self._source.offset
        expected = self._sequence
        raw = self._source.read(FRAME_HEADER_BYTES, 'a frame header', expected)
        bound = raw[:_BOUND_BYTES]
        binding = self.header.uuid + _BINDING_TAIL.pack(self.header.epoch, offset) + bound
        frame = Frame()
        (frame.type, flags, payload_bytes, frame.sequence, frame.arg0, frame.arg1,
         payload_digest, header_digest) = _FRAME.unpack(raw)
        if header_digest != xxh3_64(binding):
            raise Damage('header digest mismatch', offset, expected)
        if frame.sequence != expected:
            raise Damage(f'sequence {frame.sequence} instead of {expected}', offset, expected)
        if flags != 0:
            raise Damage('frame flags are not zero', offset, expected)
        if payload_bytes > PAYLOAD_BYTES_MAX:
            raise Damage(f'a payload of {payload_bytes} bytes', offset, expected)
        if limit is not None and offset + FRAME_HEADER_BYTES + pad8(payload_bytes) > limit:
            raise Damage('the frame runs into the footer', offset, expected)
        padded = self._source.read(pad8(payload_bytes), 'a payload', expected)
        if payload_digest != xxh3_64(padded):
            raise Damage('payload digest mismatch', offset, expected)
        if any(padded[payload_bytes:]):
            raise Damage('payload padding is not zero', offset, expected)
        frame.payload = padded[:payload_bytes]
        frame.offset = offset
        frame.header_digest = raw[_BOUND_BYTES:]
        self._sequence += 1
        return frame
