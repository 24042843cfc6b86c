"""The index document and the footer (format section 9), compared with what the stream really holds.

`check_document` raises ValueError; the caller knows which frames carried the document.
"""

from struct import Struct

from damage import Damage
from frame import pad8
from xxh3 import xxh3_64

FOOTER_MAGIC = b'\x8aCKP\r\n\x1a\n'
FOOTER_BYTES = 64
PIECE_BYTES_MAX = 1 << 20
DOCUMENT_BYTES_MAX = 384 << 20

_COUNTS = Struct('<II')
_CONTEXT = Struct('<QIIQ')
_TAG = Struct('<QQII')
_GROUP = Struct('<QQQ')
_FOOTER = Struct('<8sQQQ16sQQ')


class _Cursor:
    def __init__(self, data):
        self._data = data
        self._at = 0

    def fields(self, layout):
        return layout.unpack(self._take(layout.size))

    def name(self, count):
        padded = self._take(pad8(count))
        if any(padded[count:]):
            raise ValueError('padding is not zero')
        return padded[:count]

    def finish(self):
        if self._at != len(self._data):
            raise ValueError('the document goes on behind its last entry')

    def _take(self, count):
        if count > len(self._data) - self._at:
            raise ValueError('the document ends inside an entry')
        self._at += count
        return self._data[self._at - count:self._at]


def check_document(document, checkpoint):
    cursor = _Cursor(document)
    groups = [] if checkpoint.memory is None else list(checkpoint.memory.groups.values())
    groups.sort(key=lambda group: group.first_page)
    told = cursor.fields(_COUNTS)
    if told != (len(checkpoint.contexts), len(groups)):
        raise ValueError(f'{told[0]} contexts and {told[1]} groups, '
                         f'the stream has {len(checkpoint.contexts)} and {len(groups)}')
    for context in checkpoint.contexts.values():
        _check_context(cursor, context)
        for tag in context.tags.values():
            _check_tag(cursor, tag)
    for group in groups:
        if cursor.fields(_GROUP) != (group.first_page, group.page_count, group.offset):
            raise ValueError(f'wrong entry of the group at page {group.first_page}')
    cursor.finish()


def _check_context(cursor, context):
    offset, kind, tag_count, name_bytes = cursor.fields(_CONTEXT)
    name = cursor.name(name_bytes)
    told = (offset, kind, tag_count, name)
    if told != (context.offset, context.kind, len(context.tags), context.name.encode()):
        raise ValueError(f'wrong entry of context {context.ordinal}')


def _check_tag(cursor, tag):
    offset, byte_count, type_code, tag_bytes = cursor.fields(_TAG)
    name = cursor.name(tag_bytes)
    if (offset, byte_count, type_code, name) != (
            tag.offset, tag.byte_count, tag.type, tag.name.encode()):
        raise ValueError(f'wrong entry of the tag at offset {tag.offset}')


def check_footer(raw, offset, uuid, end_offset, index_offset):
    """Checks the 64 bytes at `offset`, which is also where the INDEX frames end."""
    magic, told_end, told_index, index_bytes, told_uuid, stream_bytes, digest = _FOOTER.unpack(raw)
    if digest != xxh3_64(raw[:56]):
        raise Damage('footer: digest mismatch', offset + 56)
    if magic != FOOTER_MAGIC:
        raise Damage('footer: not the magic of a footer', offset)
    if told_end != end_offset:
        raise Damage('footer: wrong offset of the END frame', offset + 8)
    if told_index != index_offset:
        raise Damage('footer: wrong offset of the first INDEX frame', offset + 16)
    if index_bytes != offset - index_offset:
        raise Damage('footer: wrong number of index bytes', offset + 24)
    if told_uuid != uuid:
        raise Damage('footer: UUID of another checkpoint', offset + 32)
    if stream_bytes != offset + FOOTER_BYTES:
        raise Damage('footer: wrong number of stream bytes', offset + 48)
