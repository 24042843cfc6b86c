"""Reads one whole stream and checks every rule of the format: contexts, tags, END, index, footer.

`read_checkpoint` gives a Checkpoint or raises Damage; it raises nothing else, whatever the bytes,
apart from OSError of the file itself. Memory frames are handed to a MemoryReader.
"""

from hashlib import sha256
from struct import Struct, unpack_from

import frame as frames
import index
from checkpoint import KIND_MEMORY, KIND_VALUES, Checkpoint, Context, Tag
from damage import Damage
from frame import FrameReader, Source, pad8
from memory import MemoryReader
from value import check_data, check_type, parse_name

CONTEXT_COUNT_MAX = 65_536
TAG_COUNT_MAX = 1_048_576
VALUE_BYTES_MAX = 256 << 20
PIECE_BYTES_MAX = 1 << 20

_END = Struct('<32sQQQQQQQQQ')
_END_COUNTS = ('contexts', 'tags', 'pages', 'zero pages', 'fill pages', 'stored pages',
               'same pages', 'parent pages', 'encoded bytes')
_INDEX_BYTES_MIN = frames.FRAME_HEADER_BYTES + 8 + index.FOOTER_BYTES


def read_checkpoint(file, on_frame=None):
    """Reads a stream from a binary file. `on_frame(frame)` is called for each sound frame."""
    reader = _StreamReader(file, on_frame)
    try:
        return reader.read()
    except BaseException:
        reader.checkpoint.close()
        raise


class _StreamReader:
    def __init__(self, file, on_frame):
        self._source = Source(file)
        self._frames = FrameReader(self._source)
        self._on_frame = on_frame
        header = self._frames.header
        self._root = sha256(header.raw)
        self.checkpoint = Checkpoint(header.minor, header.uuid, header.parent, header.parent_root,
                                     header.epoch, header.created)
        self._context = None
        # The tag whose value is not complete yet, and its data so far.
        self._tag = None
        self._data = bytearray()
        self._memory_reader = None
        self._tag_count = 0
        self._value_bytes = 0
        self._handlers = {
            frames.CONTEXT_OPEN: self._context_open,
            frames.CONTEXT_CLOSE: self._context_close,
            frames.TAG: self._tag_first,
            frames.TAG_MORE: self._tag_more,
            frames.REGION_TABLE: self._memory_frame,
            frames.ZERO_RUN: self._memory_frame,
            frames.PAGE_BLOCK: self._memory_frame,
            frames.PARENT_RUN: self._memory_frame,
            frames.BLOCK_INDEX: self._memory_frame,
        }

    def read(self):
        while True:
            frame = self._next()
            if self._tag is not None and frame.type != frames.TAG_MORE:
                raise frame.damage('stands inside a value that is not complete')
            if frame.type == frames.END:
                break
            handler = self._handlers.get(frame.type)
            if handler is not None:
                handler(frame)
            elif frame.type == frames.INDEX:
                raise frame.damage('stands before END')
            elif frame.type & frames.OPTIONAL_BIT:
                self._unknown(frame)
            else:
                raise frame.damage('unsupported critical frame')
            self._root.update(frame.header_digest)
        self._end(frame)
        if frame.arg1 != 0:
            self._index_and_footer(frame)
        self.checkpoint.stream_bytes = self._source.offset
        if not self._source.at_end():
            raise Damage('trailing data', self._source.offset)
        return self.checkpoint

    def _next(self, limit=None):
        frame = self._frames.next(limit)
        if self._on_frame is not None:
            self._on_frame(frame)
        self.checkpoint.frame_count = frame.sequence + 1
        return frame

    def _unknown(self, frame):
        in_memory = self._context is not None and self._context.kind == KIND_MEMORY
        if in_memory and not self._memory_reader.memory.regions:
            raise frame.damage('stands before REGION_TABLE')
        self.checkpoint.unknown_frame_count += 1

    def _name(self, frame, raw):
        try:
            return parse_name(raw)
        except ValueError as error:
            raise frame.damage(str(error)) from None

    def _context_open(self, frame):
        contexts = self.checkpoint.contexts
        if self._context is not None:
            raise frame.damage('a context is open')
        if len(contexts) >= CONTEXT_COUNT_MAX:
            raise frame.damage(f'more than {CONTEXT_COUNT_MAX} contexts')
        if frame.arg0 != len(contexts):
            raise frame.damage(f'ordinal {frame.arg0} instead of {len(contexts)}')
        if frame.arg1 not in (KIND_VALUES, KIND_MEMORY):
            raise frame.damage(f'unknown context kind {frame.arg1}')
        name = self._name(frame, frame.payload)
        if name in contexts:
            raise frame.damage('a context name that was used before')
        if frame.arg1 == KIND_MEMORY:
            if self._memory_reader is not None:
                raise frame.damage('a second memory context')
            self._memory_reader = MemoryReader(self.checkpoint.has_parent)
            self.checkpoint.memory = self._memory_reader.memory
        self._context = Context(name, frame.arg1, frame.arg0, frame.offset)
        contexts[name] = self._context

    def _context_close(self, frame):
        context = self._context
        if context is None:
            raise frame.damage('no context is open')
        if frame.payload:
            raise frame.damage('has a payload')
        if frame.arg0 != context.ordinal:
            raise frame.damage(f'ordinal {frame.arg0} instead of {context.ordinal}')
        if context.kind == KIND_MEMORY:
            count = self._memory_reader.finish(frame)
        else:
            count = len(context.tags)
        if frame.arg1 != count:
            raise frame.damage(f'tells {frame.arg1} tags or pages, there are {count}')
        context.end = frame.end
        self._context = None

    def _check_open(self, frame, kind):
        if self._context is None or self._context.kind != kind:
            kind_name = 'memory' if kind == KIND_MEMORY else 'value'
            raise frame.damage(f'stands outside a {kind_name} context')

    def _memory_frame(self, frame):
        self._check_open(frame, KIND_MEMORY)
        self._memory_reader.read(frame)

    def _tag_first(self, frame):
        self._check_open(frame, KIND_VALUES)
        payload = frame.payload
        if frame.arg1 != 0:
            raise frame.damage('arg1 is not zero')
        if len(payload) < 16:
            raise frame.damage('payload shorter than its fields')
        tag_bytes = unpack_from('<Q', payload)[0]
        data_at = 16 + pad8(tag_bytes)
        if data_at > len(payload):
            raise frame.damage('payload shorter than its fields')
        name = self._name(frame, payload[8:8 + tag_bytes])
        if any(payload[8 + tag_bytes:data_at - 8]):
            raise frame.damage('padding of the tag is not zero')
        if name in self._context.tags:
            raise frame.damage('a tag that was used before in the context')
        byte_count = unpack_from('<Q', payload, data_at - 8)[0]
        self._count_value(frame, byte_count)
        try:
            check_type(frame.arg0, byte_count)
        except ValueError as error:
            raise frame.damage(str(error)) from None
        if len(payload) - data_at != min(byte_count, PIECE_BYTES_MAX):
            raise frame.damage(f'{len(payload) - data_at} data bytes of {byte_count}')
        self._tag = Tag(name, frame.arg0, byte_count, frame.offset)
        self._context.tags[name] = self._tag
        self._data = bytearray(payload[data_at:])
        self._finish_value(frame)

    def _count_value(self, frame, byte_count):
        self._tag_count += 1
        self._value_bytes += byte_count
        if self._tag_count > TAG_COUNT_MAX:
            raise frame.damage(f'more than {TAG_COUNT_MAX} tags')
        if self._value_bytes > VALUE_BYTES_MAX:
            raise frame.damage('values of more than 256 MiB')

    def _tag_more(self, frame):
        if self._tag is None:
            raise frame.damage('no value is incomplete')
        if frame.arg0 != len(self._data):
            raise frame.damage(f'piece at {frame.arg0} instead of {len(self._data)}')
        if frame.arg1 != 0:
            raise frame.damage('arg1 is not zero')
        rest = self._tag.byte_count - len(self._data)
        if len(frame.payload) != min(rest, PIECE_BYTES_MAX):
            raise frame.damage(f'a piece of {len(frame.payload)} bytes, the rest is {rest}')
        self._data += frame.payload
        self._finish_value(frame)

    def _finish_value(self, frame):
        if len(self._data) < self._tag.byte_count:
            return
        self._tag.data = bytes(self._data)
        try:
            check_data(self._tag.type, self._tag.data)
        except ValueError as error:
            raise frame.damage(str(error)) from None
        self._tag = None

    def _end(self, frame):
        if self._context is not None:
            raise frame.damage('a context is open')
        if frame.arg0 != frame.sequence:
            raise frame.damage(f'tells {frame.arg0} frames, there are {frame.sequence}')
        if frame.arg1 != 0 and (frame.arg1 < _INDEX_BYTES_MIN or frame.arg1 % 8 != 0):
            raise frame.damage(f'{frame.arg1} bytes are no index and footer')
        if len(frame.payload) != _END.size:
            raise frame.damage(f'{len(frame.payload)} payload bytes instead of {_END.size}')
        root, *told = _END.unpack(frame.payload)
        checkpoint = self.checkpoint
        counts = [len(checkpoint.contexts), checkpoint.tag_count, 0, 0, 0, 0, 0, 0, 0]
        if checkpoint.memory is not None:
            memory = checkpoint.memory
            counts[2:] = [memory.page_count, *memory.class_counts, memory.encoded_bytes]
        for name, wanted, count in zip(_END_COUNTS, told, counts):
            if wanted != count:
                raise frame.damage(f'tells {wanted} {name}, there are {count}')
        checkpoint.root = self._root.digest()
        if root != checkpoint.root:
            raise frame.damage('root digest mismatch')

    def _index_and_footer(self, end):
        footer_offset = end.end + end.arg1 - index.FOOTER_BYTES
        document = bytearray()
        document_bytes = None
        while self._source.offset < footer_offset:
            piece = self._next(footer_offset)
            if piece.type != frames.INDEX:
                raise piece.damage('stands behind END')
            if document_bytes is None:
                first = piece
                document_bytes = piece.arg1
                if document_bytes > index.DOCUMENT_BYTES_MAX:
                    raise piece.damage(f'a document of {document_bytes} bytes')
            if piece.arg1 != document_bytes:
                raise piece.damage('tells another number of document bytes')
            if piece.arg0 != len(document):
                raise piece.damage(f'piece at {piece.arg0} instead of {len(document)}')
            rest = document_bytes - len(document)
            if rest == 0 or len(piece.payload) != min(rest, index.PIECE_BYTES_MAX):
                raise piece.damage(f'a piece of {len(piece.payload)} bytes, the rest is {rest}')
            document += piece.payload
        if len(document) != document_bytes:
            raise first.damage(f'{len(document)} of {document_bytes} document bytes are here')
        try:
            index.check_document(bytes(document), self.checkpoint)
        except ValueError as error:
            raise first.damage(str(error)) from None
        raw = self._source.read(index.FOOTER_BYTES, 'the footer')
        index.check_footer(raw, footer_offset, self.checkpoint.uuid, end.offset, end.end)
        self.checkpoint.has_index = True
