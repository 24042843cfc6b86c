"""Rules of contexts, tags and values: section 5 of the format."""

from struct import pack

from encoder import TAG, TAG_MORE, StreamWriter, tag_payload
from rule import Cases, in_values

CASES = Cases()
refused, legal = CASES.refused, CASES.legal
MIB = 1 << 20

BAD_NAMES = [
    ('empty', b'', 'a name of 0 bytes'),
    ('long', b'n' * 256, 'a name of 256 bytes'),
    ('slash', b'a/b', 'not allowed'),
    ('control', b'a\x1f', 'not allowed'),
    ('zero', b'a\x00b', 'not allowed'),
    ('delete', b'\x7f', 'not allowed'),
    ('dot', b'.', '. or ..'),
    ('dots', b'..', '. or ..'),
    ('latin1', b'na\xefve', 'not UTF-8'),
    ('surrogate', b'\xed\xa0\x80', 'not UTF-8'),
    ('overlong', b'\xc0\xaf', 'not UTF-8'),
]
GOOD_NAMES = [b' ', b'...', b'.a', b'n' * 255, 'ナメ☃'.encode(), b'a\\b:*?', b'\xc2\x80']


def case(name, rule, message, build):
    build.__name__ = name
    build.__doc__ = rule
    refused(message)(build)


def open_stream(name, *rest, **edit):
    writer = StreamWriter()
    writer.open(name, *rest, **edit)
    return writer.out


def tag_stream(payload, arg0=0, arg1=0):
    writer = in_values()
    writer.frame(TAG, arg0, arg1, payload)
    return writer.out


for label, raw, message in BAD_NAMES:
    case(f'context_name_{label}', 'a context name follows the rules', message,
         lambda raw=raw: open_stream(raw))
    case(f'tag_name_{label}', 'a tag follows the rules of a context name', message,
         lambda raw=raw: tag_stream(tag_payload(raw, b'')))


@legal()
def good_names():
    """everything else is a name, for contexts and tags"""
    writer = StreamWriter()
    for name in GOOD_NAMES:
        writer.open(name)
        for tag in GOOD_NAMES:
            writer.tag(tag, 0, b'')
        writer.close()
    return writer.finish()


case('context_ordinal', 'arg0 is the ordinal', 'ordinal 1 instead of 0',
     lambda: open_stream('name', ordinal=1))
case('context_kind', 'arg1 is 0 or 1', 'unknown context kind 2', lambda: open_stream('name', 2))


def two_contexts(first, second, kind=0):
    writer = StreamWriter()
    writer.open(first, kind)
    if kind == 1:
        writer.regions((0, 4096))
        writer.zero_run(0, 1)
    writer.close()
    writer.open(second, kind)
    return writer.out


case('context_name_twice', 'a name is used once', 'a context name that was used before',
     lambda: two_contexts('name', 'name'))
case('memory_twice', 'a checkpoint has at most one memory context', 'a second memory context',
     lambda: two_contexts('memory', 'more', 1))


def many_contexts(count):
    writer = StreamWriter()
    for number in range(count):
        writer.open(f'context {number}')
        writer.tag('tag', 3, b'\1')
        writer.close()
    return writer.finish()


@refused('more than 3 contexts', stream_CONTEXT_COUNT_MAX=3)
def context_count():
    """at most 65536 contexts"""
    return many_contexts(4)


@refused('more than 3 tags', stream_TAG_COUNT_MAX=3)
def tag_count():
    """at most 1048576 tags in all contexts together"""
    return many_contexts(4)


@legal(stream_TAG_COUNT_MAX=3, stream_CONTEXT_COUNT_MAX=3, stream_VALUE_BYTES_MAX=3)
def limits_reached():
    """the limits themselves are legal"""
    return many_contexts(3)


@refused('values of more than 256 MiB', stream_VALUE_BYTES_MAX=3)
def value_bytes_of_all_contexts():
    """the values of a checkpoint are counted together"""
    return many_contexts(4)


case('value_bytes', 'at most 256 MiB of values', 'values of more than 256 MiB',
     lambda: tag_stream(tag_payload(b'tag', bytes(MIB), size=256 * MIB + 1)))


def closed(**edit):
    writer = in_values()
    writer.tag('tag', 0, b'')
    writer.close(**edit)
    return writer.out


case('close_ordinal', 'CONTEXT_CLOSE arg0 is the ordinal', 'ordinal 1 instead of 0',
     lambda: closed(ordinal=1))
case('close_count', 'CONTEXT_CLOSE arg1 is the number of tags',
     'tells 2 tags or pages, there are 1', lambda: closed(count=2))
case('close_payload', 'CONTEXT_CLOSE has no payload', 'has a payload',
     lambda: closed(payload=b'\0'))

case('tag_arg1', 'TAG arg1 is zero', 'arg1 is not zero',
     lambda: tag_stream(tag_payload(b'tag', b''), 0, 1))
case('tag_payload_7', 'the payload has the fields', 'shorter than its fields',
     lambda: tag_stream(bytes(7)))
case('tag_payload_8', 'the payload has the fields', 'shorter than its fields',
     lambda: tag_stream(pack('<Q', 1)))
case('tag_payload_16', 'the payload has the fields', 'shorter than its fields',
     lambda: tag_stream(pack('<Q', 1) + b'tag\0\0\0\0\0'))
case('tag_bytes_beyond', 'the tag lies in the payload', 'shorter than its fields',
     lambda: tag_stream(tag_payload(b'tag', b'', name_bytes=2**64 - 1)))
case('tag_padding', 'the bytes between the tag and D are padding', 'padding of the tag',
     lambda: tag_stream(tag_payload(b'tag', b'', padding=b'\0\0\0\0\1')))


@refused('a tag that was used before')
def tag_twice():
    """a tag is unique in its context"""
    writer = in_values()
    writer.tag('tag', 3, b'\1')
    writer.tag('tag', 4, b'\1\0')
    return writer.out


@legal()
def tag_in_two_contexts():
    """a tag is unique in its context only"""
    return many_contexts(2)


case('tag_data_short', 'the data of a short value is whole', '3 data bytes of 4',
     lambda: tag_stream(tag_payload(b'tag', b'\0\0\0', size=4), 5))
case('tag_data_long', 'nothing stands behind the data', '5 data bytes of 4',
     lambda: tag_stream(tag_payload(b'tag', bytes(5), size=4), 5))
case('tag_first_piece_short', 'the first piece of a long value is 1 MiB', '8 data bytes of 1048577',
     lambda: tag_stream(tag_payload(b'tag', bytes(8), size=MIB + 1)))
case('tag_first_piece_long', 'the first piece of a long value is 1 MiB', '1048577 data bytes of',
     lambda: tag_stream(tag_payload(b'tag', bytes(MIB + 1), size=MIB + 1)))


def pieces(size, *more):
    """A value of 1 MiB and more; `more`: (arg0, arg1, data bytes) of TAG_MORE frames."""
    writer = in_values()
    writer.frame(TAG, 0, 0, tag_payload(b'tag', bytes(MIB), size=size))
    for arg0, arg1, count in more:
        writer.frame(TAG_MORE, arg0, arg1, bytes(count))
    return writer.out


case('piece_offset', 'TAG_MORE arg0 is the offset of the piece', 'piece at 0 instead of 1048576',
     lambda: pieces(MIB + 9, (0, 0, 9)))
case('piece_arg1', 'TAG_MORE arg1 is zero', 'arg1 is not zero',
     lambda: pieces(MIB + 9, (MIB, 1, 9)))
case('piece_short', 'a piece is the rest or 1 MiB', 'a piece of 8 bytes, the rest is 9',
     lambda: pieces(MIB + 9, (MIB, 0, 8)))
case('piece_long', 'a piece is the rest or 1 MiB', 'a piece of 10 bytes, the rest is 9',
     lambda: pieces(MIB + 9, (MIB, 0, 10)))
case('piece_above_1_mib', 'a piece is at most 1 MiB', 'a piece of 1048577 bytes',
     lambda: pieces(2 * MIB + 9, (MIB, 0, MIB + 1)))
case('piece_behind_the_last', 'TAG_MORE follows only an incomplete value', 'no value is incomplete',
     lambda: pieces(MIB + 9, (MIB, 0, 9), (MIB + 9, 0, 0)))
case('piece_missing', 'a value is complete', 'truncated', lambda: pieces(MIB + 9))

for code in (13, 0x7F, 0x80, 0x81, 0x8D, 0x100, 0x100000005, 2**64 - 1):
    case(f'type_{code:x}', 'value types are those of the table', f'unknown value type {code}',
         lambda code=code: tag_stream(tag_payload(b'tag', b'\1'), code))

for code, size, name in ((2, 1, 'bool'), (3, 1, 'u8'), (4, 2, 'u16'), (5, 4, 'u32'), (6, 8, 'u64'),
                         (7, 1, 'i8'), (8, 2, 'i16'), (9, 4, 'i32'), (10, 8, 'i64'),
                         (11, 4, 'f32'), (12, 8, 'f64')):
    for wrong in (0, size + 1, 3 * size):
        case(f'length_{name}_{wrong}', 'a scalar has its size', f'{wrong} data bytes for a {name}',
             lambda code=code, wrong=wrong: tag_stream(tag_payload(b'tag', bytes(wrong)), code))
    if size > 1:
        case(f'length_{name}_vector', 'a vector has whole elements',
             f'{size + 1} data bytes are no vector of {name}',
             lambda code=0x80 + code, data=bytes(size + 1):
             tag_stream(tag_payload(b't', data), code))

case('bool_2', 'a bool is 0 or 1', 'neither 0 nor 1',
     lambda: tag_stream(tag_payload(b't', b'\2'), 2))
case('bool_vector_255', 'each bool of a vector is 0 or 1', 'neither 0 nor 1',
     lambda: tag_stream(tag_payload(b't', b'\0\1\xff\1\0'), 0x82))
case('string_not_utf8', 'a string is UTF-8', 'a string that is not UTF-8',
     lambda: tag_stream(tag_payload(b't', b'caf\xe9'), 1))
