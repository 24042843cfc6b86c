"""StreamWriter: a second, independent writer of the format, made from docs/format.md for the tests.

It writes forward into a bytearray and keeps the books (offsets, sequence numbers, counts, root) as
a correct stream needs them. Every frame takes overrides, so that a test can break one rule and
still have sound digests: `edit` of a frame may set flags, sequence, payload_bytes, padding,
payload_digest, header_digest, and uuid, epoch or offset of the binding.
"""

from hashlib import sha256
from struct import pack

from lz4_encoder import encode_block
from xxh3 import xxh3_64

UUID = bytes(range(0xA0, 0xB0))
PARENT_UUID = bytes(range(0xC0, 0xD0))
PARENT_ROOT = bytes(range(32))

OPEN, CLOSE, TAG, TAG_MORE = 1, 2, 3, 4
REGIONS, ZERO_RUN, PAGE_BLOCK, PARENT_RUN, BLOCK_INDEX = 0x10, 0x11, 0x12, 0x14, 0x80000013
END, INDEX = 0x20, 0x80000021

PAGE = 4096
PIECE = 1 << 20
NO_BLOCK = 0xFFFFFFFF
CLASS_OF_PAGE = {'zero': 0, 'fill': 1, 'stored': 2, 'same': 3, 'parent': 4}


def padding_of(count):
    return bytes(-count % 8)


def padded(data):
    return data + padding_of(len(data))


def header_bytes(uuid=UUID, parent=bytes(16), epoch=0, parent_root=bytes(32), created=0, minor=None,
                 major=1, size=128, flags=0, magic=b'\x89CKP\r\n\x1a\n', reserved=bytes(16),
                 digest=None):
    if minor is None:
        minor = int(any(parent))
    raw = pack('<8sHHI16s16sQQ32sQ16s', magic, major, minor, size, uuid, parent, epoch, flags,
               parent_root, created, reserved)
    return raw + pack('<Q', xxh3_64(raw) if digest is None else digest)


def tag_payload(name, data, size=None, name_bytes=None, padding=None):
    name_bytes = len(name) if name_bytes is None else name_bytes
    padding = padding_of(len(name)) if padding is None else padding
    size = len(data) if size is None else size
    return pack('<Q', name_bytes) + name + padding + pack('<Q', size) + data


def block_payload(classes, data=b'', words=(), codec=0, size=None, reserved=bytes(3), padding=None):
    """`classes` is a list of nibbles, lowest page first."""
    packed = sum(kind << 4 * at for at, kind in enumerate(classes))
    size = len(data) if size is None else size
    padding = padding_of(len(data)) if padding is None else padding
    head = pack('<B3sIQ', codec, reserved, size, packed)
    return head + data + padding + b''.join(pack('<Q', word) for word in words)


class StreamWriter:
    def __init__(self, **header):
        self.uuid = header.get('uuid', UUID)
        self.epoch = header.get('epoch', 0)
        self.out = bytearray(header_bytes(**header))
        self.root = sha256(self.out)
        self.sequence = 0
        # What END and the index tell: [offset, kind, name, [(offset, size, type, tag)]].
        self.contexts = []
        self.counts = dict.fromkeys(
            ('contexts', 'tags', 'pages', 'zero', 'fill', 'stored', 'same', 'parent', 'encoded'), 0)
        self.groups = []
        self.blocks = {}
        self.end_offset = None

    def frame(self, kind, arg0=0, arg1=0, payload=b'', **edit):
        """Appends a frame and gives its offset."""
        offset = edit.get('offset', len(self.out))
        body = payload + edit.get('padding', padding_of(len(payload)))
        bound = pack('<IIQQQQQ', kind, edit.get('flags', 0),
                     edit.get('payload_bytes', len(payload)), edit.get('sequence', self.sequence),
                     arg0, arg1, edit.get('payload_digest', xxh3_64(body)))
        binding = edit.get('uuid', self.uuid) + pack('<QQ', edit.get('epoch', self.epoch), offset)
        digest = pack('<Q', edit.get('header_digest', xxh3_64(binding + bound)))
        self.root.update(digest)
        self.sequence += 1
        at = len(self.out)
        self.out += bound + digest + body
        return at

    def open(self, name, kind=0, ordinal=None, **edit):
        name = name if isinstance(name, bytes) else name.encode()
        ordinal = len(self.contexts) if ordinal is None else ordinal
        at = self.frame(OPEN, ordinal, kind, name, **edit)
        self.contexts.append([at, kind, name, []])
        self.counts['contexts'] += 1

    def close(self, count=None, ordinal=None, payload=b'', **edit):
        if count is None:
            memory = self.contexts[-1][1] == 1
            count = self.counts['pages'] if memory else len(self.contexts[-1][3])
        ordinal = len(self.contexts) - 1 if ordinal is None else ordinal
        self.frame(CLOSE, ordinal, count, payload, **edit)

    def tag(self, name, kind, data, arg1=0):
        """A whole value, cut into as many frames as it needs."""
        name = name if isinstance(name, bytes) else name.encode()
        at = self.frame(TAG, kind, arg1, tag_payload(name, data[:PIECE], len(data)))
        for piece in range(PIECE, len(data), PIECE):
            self.frame(TAG_MORE, piece, 0, data[piece:piece + PIECE])
        self.contexts[-1][3].append((at, len(data), kind, name))
        self.counts['tags'] += 1

    def regions(self, *regions, count=None, page_bytes=PAGE):
        payload = b''.join(pack('<QQ', base, size) for base, size in regions)
        self.frame(REGIONS, len(regions) if count is None else count, page_bytes, payload)

    def zero_run(self, first, count, payload=b''):
        self.frame(ZERO_RUN, first, count, payload)
        self.counts['zero'] += count
        self.counts['pages'] += count

    def parent_run(self, first, count, payload=b''):
        self.frame(PARENT_RUN, first, count, payload)
        self.counts['parent'] += count
        self.counts['pages'] += count

    def page_block(self, first, *pages, codec=0):
        """`pages`: ('zero',), ('fill', word), ('stored', 4096 bytes), ('same', page),
        ('parent',)."""
        data = b''.join(page[1] for page in pages if page[0] == 'stored')
        words = [page[1] for page in pages if page[0] in ('fill', 'same')]
        encoded = encode_block(data) if codec == 1 else data
        classes = [CLASS_OF_PAGE[page[0]] for page in pages]
        self.blocks[first] = self.frame(PAGE_BLOCK, first, len(pages),
                                        block_payload(classes, encoded, words, codec))
        for page in pages:
            self.counts[page[0]] += 1
        self.counts['pages'] += len(pages)
        self.counts['encoded'] += len(encoded)

    def block_index(self, first, count, base=None, entries=None):
        starts = range(first, first + count, 16)
        if base is None:
            base = min(self.blocks[page] for page in starts if page in self.blocks)
        if entries is None:
            entries = [(self.blocks[page] - base) // 8 if page in self.blocks else NO_BLOCK
                       for page in starts]
        payload = pack(f'<Q{len(entries)}I', base, *entries)
        self.groups.append((first, count, self.frame(BLOCK_INDEX, first, count, payload)))

    def document(self):
        groups = sorted(self.groups)
        out = pack('<II', len(self.contexts), len(groups))
        for at, kind, name, tags in self.contexts:
            out += pack('<QIIQ', at, kind, len(tags), len(name)) + padded(name)
            for tag_at, size, type_code, tag in tags:
                out += pack('<QQII', tag_at, size, type_code, len(tag)) + padded(tag)
        return out + b''.join(pack('<QQQ', *group) for group in groups)

    def end(self, index_bytes=0, count=None, root=None, payload=None, **counts):
        """END; `counts` override what it tells."""
        payload = payload if payload is not None else (
            (self.root.digest() if root is None else root)
            + pack('<9Q', *{**self.counts, **counts}.values()))
        count = self.sequence if count is None else count
        self.end_offset = self.frame(END, count, index_bytes, payload)

    def finish(self, index=True, document=None, piece=PIECE, footer=None, **end):
        """END and, unless told otherwise, index and footer. Gives the stream."""
        if not index:
            self.end(**end)
            return bytes(self.out)
        document = self.document() if document is None else document
        pieces = [document[at:at + piece] for at in range(0, len(document), piece)]
        self.end(sum(56 + len(padded(part)) for part in pieces) + 64, **end)
        first = len(self.out)
        for at, part in enumerate(pieces):
            self.frame(INDEX, at * piece, len(document), part)
        self.out += self.footer(first, **(footer or {}))
        return bytes(self.out)

    def footer(self, first, magic=b'\x8aCKP\r\n\x1a\n', end=None, index=None, index_bytes=None,
               uuid=None, stream_bytes=None, digest=None):
        at = len(self.out)
        raw = pack('<8sQQQ16sQ', magic,
                   self.end_offset if end is None else end,
                   first if index is None else index,
                   at - first if index_bytes is None else index_bytes,
                   self.uuid if uuid is None else uuid,
                   at + 64 if stream_bytes is None else stream_bytes)
        return raw + pack('<Q', xxh3_64(raw) if digest is None else digest)
