"""Strict decoder of one LZ4 block (raw block format: no frame, no dictionary).

Strict means: the block decodes to exactly the size the caller expects, uses every input byte, and
keeps the end-of-block rules of the LZ4 block format (the last 5 bytes are literals, the last match
starts at least 12 bytes before the end). Any other block raises Lz4Error and nothing else; output
never grows beyond the expected size, whatever lengths the block claims.
"""

_MATCH_BYTES_MIN = 4
_END_LITERAL_BYTES = 5
_END_MATCH_DISTANCE = 12


class Lz4Error(ValueError):
    """The block is not a legal LZ4 block of the expected size."""


def decode_block(block, size):
    """Decodes `block` (bytes) into exactly `size` bytes, as a bytearray."""
    out = bytearray()
    end = len(block)
    at = 0
    while True:
        if at >= end:
            raise Lz4Error('the block ends before its last literals')
        token = block[at]
        at += 1

        count = token >> 4
        if count == 15:
            count, at = _extended_length(block, at, count)
        if count > end - at:
            raise Lz4Error('literals run beyond the block')
        if count > size - len(out):
            raise Lz4Error('literals run beyond the decoded size')
        out += block[at:at + count]
        at += count
        if at == end:
            if len(out) != size:
                raise Lz4Error(f'the block decodes to {len(out)} bytes instead of {size}')
            return out

        if end - at < 2:
            raise Lz4Error('the block ends inside a match offset')
        distance = block[at] | block[at + 1] << 8
        at += 2
        start = len(out)
        if distance == 0 or distance > start:
            raise Lz4Error('a match reaches before the first decoded byte')
        count = token & 15
        if count == 15:
            count, at = _extended_length(block, at, count)
        count += _MATCH_BYTES_MIN
        if start > size - _END_MATCH_DISTANCE or count > size - _END_LITERAL_BYTES - start:
            raise Lz4Error('a match reaches into the last literals')
        if count <= distance:
            source = start - distance
            out += out[source:source + count]
        else:
            # The match overlaps its own output: the last `distance` bytes repeat.
            out += (out[start - distance:] * (count // distance + 1))[:count]


def _extended_length(block, at, count):
    """A length too long for the token: bytes are added up to and with the first below 255."""
    end = len(block)
    while at < end:
        more = block[at]
        at += 1
        count += more
        if more != 255:
            return count, at
    raise Lz4Error('the block ends inside a length')

