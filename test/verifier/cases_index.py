"""Rules of the index document and the footer: section 9 of the format."""

from encoder import INDEX, StreamWriter, padded
from rule import Cases, whole
from sample import small, write_small

CASES = Cases()
refused, legal = CASES.refused, CASES.legal


def case(name, rule, message, build):
    build.__name__ = name
    build.__doc__ = rule
    refused(message)(build)


def told(change):
    """The small sample with an index document made after `change(writer)` falsified the books."""
    writer = StreamWriter()
    write_small(writer)
    change(writer)
    return writer.finish()


def set_context(at, field, value):
    def change(writer):
        writer.contexts[at][field] = value
    return lambda: told(change)


def set_tag(field, value):
    def change(writer):
        tag = list(writer.contexts[0][3][1])
        tag[field] = value
        writer.contexts[0][3][1] = tuple(tag)
    return lambda: told(change)


def set_group(field, value):
    def change(writer):
        group = list(writer.groups[0])
        group[field] = value
        writer.groups[0] = tuple(group)
    return lambda: told(change)


case('document_contexts', 'all contexts are there', '2 contexts and 1 groups',
     lambda: told(lambda writer: writer.contexts.pop()))
case('document_groups', 'all groups are there', '3 contexts and 0 groups',
     lambda: told(lambda writer: writer.groups.pop()))
case('context_offset', 'offset of CONTEXT_OPEN', 'entry of context 1', set_context(1, 0, 128))
case('context_kind', 'kind of a context', 'entry of context 2', set_context(2, 1, 0))
case('context_name', 'name of a context', 'entry of context 0', set_context(0, 2, b'PIC'))
case('context_order', 'contexts are in stream order', 'entry of context 0',
     lambda: told(lambda writer: writer.contexts.reverse()))
case('tag_count', 'number of tags', 'entry of context 1',
     lambda: told(lambda writer: writer.contexts[1][3].clear()))
case('tag_offset', 'offset of a TAG', 'entry of the tag', set_tag(0, 128))
case('tag_data_bytes', 'data bytes of a value', 'entry of the tag', set_tag(1, 5))
case('tag_type', 'type of a value', 'entry of the tag', set_tag(2, 0))
case('tag_name', 'tag of a value', 'entry of the tag', set_tag(3, b'Name'))
case('group_page', 'first page of a group', 'entry of the group', set_group(0, 1))
case('group_pages', 'page count of a group', 'entry of the group', set_group(1, 16))
case('group_offset', 'offset of a BLOCK_INDEX', 'entry of the group', set_group(2, 128))


def document():
    writer = StreamWriter()
    write_small(writer)
    return writer.document()


def padded_name():
    """The document with a byte in the padding of the first name, `pic`."""
    out = bytearray(document())
    out[8 + 24 + 7] = 1
    return bytes(out)


case('document_padding', 'padding is zero', 'padding is not zero',
     lambda: whole(document=padded_name()))
case('document_short', 'the document is whole', 'ends inside an entry',
     lambda: whole(document=document()[:-8]))
case('document_tiny', 'the document has its counts', 'ends inside an entry',
     lambda: whole(document=bytes(4)))
case('document_long', 'the document ends with the last group', 'goes on behind its last entry',
     lambda: whole(document=document() + bytes(8)))


@legal(index_PIECE_BYTES_MAX=64)
def document_in_pieces():
    """the document is carried in pieces of 1 MiB and a rest"""
    return whole(piece=64)


@legal(index_DOCUMENT_BYTES_MAX=len(document()))
def document_at_its_limit():
    """the document has at most so many bytes"""
    return whole()


@legal()
def document_above_1_mib():
    """the document is carried in pieces of 1 MiB and a rest"""
    writer = StreamWriter()
    writer.open('values')
    for number in range(4000):
        writer.tag(f'{number:0255}', 0, b'')
    writer.close()
    return writer.finish()


def carried(*pieces, size=None, kind=INDEX, **edit):
    """The document in hand-made pieces: (arg0, arg1, payload), None for what is right."""
    writer = StreamWriter()
    write_small(writer)
    whole_document = writer.document()
    if size is None:
        size = sum(56 + len(padded(part)) for _, _, part in pieces) + 64
    writer.end(size)
    first = len(writer.out)
    for arg0, arg1, part in pieces:
        writer.frame(kind, arg0, len(whole_document) if arg1 is None else arg1, part, **edit)
    return writer.out + writer.footer(first)


case('piece_offset', 'arg0 is the offset of the piece', 'piece at 8 instead of 0',
     lambda: carried((8, None, document())))
case('document_above_its_size', 'nothing follows the whole document', 'the rest is 0',
     lambda: carried((0, None, document()), (len(document()), None, b'')))


def in_pieces_of_64(told=None):
    """The document in pieces of 64 bytes; the second may tell another size of the document."""
    whole_document = document()
    pieces = [(at, None, whole_document[at:at + 64]) for at in range(0, len(whole_document), 64)]
    return [pieces[0], (64, told, pieces[1][2]), *pieces[2:]]


@refused('another number of document bytes', index_PIECE_BYTES_MAX=64)
def piece_document_bytes():
    """arg1 is the bytes of the document"""
    return carried(*in_pieces_of_64(told=65))


@refused('document bytes are here', index_PIECE_BYTES_MAX=64)
def pieces_missing():
    """all pieces of the document are there"""
    return carried(*in_pieces_of_64()[:-1])


case('piece_too_long', 'a piece lies in the document', 'the rest is 8',
     lambda: carried((0, 8, document())))
case('piece_empty', 'a piece is the rest or 1 MiB', 'a piece of 0 bytes',
     lambda: carried((0, None, b''), (0, None, document())))
case('piece_short', 'a piece is the rest or 1 MiB', 'a piece of 64 bytes',
     lambda: carried((0, None, document()[:64]), (64, None, document()[64:])))
case('document_of_0_bytes', 'the document has its counts', 'a piece of 8 bytes, the rest is 0',
     lambda: carried((0, 0, bytes(8))))
case('document_above_384_mib', 'the document has at most 384 MiB', 'a document of 402653185 bytes',
     lambda: carried((0, (384 << 20) + 1, document())))
case('other_frame_behind_end', 'only INDEX frames stand behind END', 'stands behind END',
     lambda: carried((0, None, document()), kind=0x8000FFFF))
case('index_into_footer', 'INDEX frames end where the footer starts', 'runs into the footer',
     lambda: carried((0, None, document()), size=136))


@refused('a piece of 65 bytes', index_PIECE_BYTES_MAX=64)
def piece_above_the_limit():
    """a piece has at most 1 MiB"""
    return whole(piece=65)


@refused('header digest mismatch')
def index_frame_of_other_place():
    """INDEX frames are bound like all others"""
    return carried((0, None, document()), offset=128)


def footer_case(name, message, **fields):
    case(f'footer_{name}', f'the footer has the {name}', message, lambda: whole(footer=fields))


footer_case('digest', 'footer: digest mismatch', digest=5)
footer_case('magic', 'footer: not the magic', magic=b'\x89CKP\r\n\x1a\n')
footer_case('end', 'footer: wrong offset of the END', end=128)
footer_case('index', 'footer: wrong offset of the first INDEX', index=128)
footer_case('index_bytes', 'footer: wrong number of index bytes', index_bytes=64)
footer_case('uuid', 'footer: UUID of another', uuid=bytes(16))
footer_case('stream_bytes', 'footer: wrong number of stream', stream_bytes=64)


@refused('truncated: the stream ends inside the footer')
def footer_cut():
    """a stream without its last byte is truncated"""
    return small()[:-1]
