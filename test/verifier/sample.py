"""The streams the tests start from: legal, and with as much of the format as their size allows."""

from struct import pack

from encoder import PAGE, PIECE, PARENT_ROOT, PARENT_UUID, StreamWriter

TEXT_PAGE = (b'one page of compressible text; ' * 133)[:PAGE]
BYTE_PAGE = bytes(range(256)) * 16

# One value of every type: type code, type name, data, value as the summary prints it.
VALUES = [
    (0, 'bytes', b'\x00\xff\x10', '00ff10'),
    (1, 'string', 'naïve ☃'.encode(), 'naïve ☃'),
    (2, 'bool', b'\1', True),
    (3, 'u8', b'\xfe', 254),
    (4, 'u16', b'\x34\x12', 0x1234),
    (5, 'u32', b'\x78\x56\x34\x12', 0x12345678),
    (6, 'u64', b'\xff' * 8, 2**64 - 1),
    (7, 'i8', b'\xfe', -2),
    (8, 'i16', b'\xfe\xff', -2),
    (9, 'i32', b'\xfe\xff\xff\xff', -2),
    (10, 'i64', b'\0' * 7 + b'\x80', -2**63),
    (11, 'f32', pack('<f', 0.1), '0.10000000149011612'),
    (12, 'f64', pack('<d', -0.0), '-0.0'),
    (0x82, 'bool[]', b'\1\0\1', [True, False, True]),
    (0x83, 'u8[]', b'\1\2', [1, 2]),
    (0x84, 'u16[]', b'\1\0\2\0', [1, 2]),
    (0x85, 'u32[]', b'', []),
    (0x86, 'u64[]', b'\1' + b'\0' * 15, [1, 0]),
    (0x87, 'i8[]', b'\xff\1', [-1, 1]),
    (0x88, 'i16[]', b'\xff\xff', [-1]),
    (0x89, 'i32[]', b'\xff\xff\xff\xff', [-1]),
    (0x8A, 'i64[]', b'\xff' * 8, [-1]),
    (0x8B, 'f32[]', pack('<2f', 1.5, float('inf')), ['1.5', 'inf']),
    (0x8C, 'f64[]', pack('<2d', 1e300, float('nan')), ['1e+300', 'nan']),
]


def write_small(writer):
    """About 2.4 KB: contexts, tags, every page class, both kinds of blocks, a group index."""
    writer.open('pic')
    writer.tag('irr', 5, b'\7\0\0\0')
    writer.tag('name', 1, b'8259')
    writer.tag('masks', 0x84, b'\1\0\2\0\3\0')
    writer.close()
    writer.open('rtc')
    writer.tag('ram', 0, bytes(range(64)))
    writer.close()
    writer.open('memory', 1)
    writer.regions((0, 36 * PAGE), (1 << 32, 16 * PAGE))
    writer.page_block(0, ('stored', TEXT_PAGE), ('zero',), ('fill', 0x1122334455667788),
                      ('same', 0), *[('zero',)] * 12, codec=1)
    writer.zero_run(16, 16)
    writer.page_block(32, *[('fill', word) for word in (1, 2, 3)], ('stored', BYTE_PAGE), codec=1)
    writer.block_index(0, 36)
    writer.zero_run(36, 16)
    writer.close()


def small(index=True, **header):
    writer = StreamWriter(**header)
    write_small(writer)
    return writer.finish(index)


INCREMENT_HEADER = {'parent': PARENT_UUID, 'parent_root': PARENT_ROOT, 'epoch': 7}


def write_increment(writer):
    """The small sample with a parent: every page class, blocks of zeros, runs of the parent's."""
    writer.open('pic')
    writer.tag('irr', 5, b'\x08\0\0\0')
    writer.close()
    writer.open('memory', 1)
    writer.regions((0, 36 * PAGE), (1 << 32, 16 * PAGE))
    writer.page_block(0, ('parent',), ('stored', BYTE_PAGE), ('zero',), ('fill', 9), ('same', 1),
                      ('same', 2), *[('parent',)] * 10)
    writer.parent_run(16, 16)
    writer.page_block(32, *[('zero',)] * 4)
    writer.block_index(0, 36)
    writer.page_block(36, ('same', 34), ('same', 3), *[('parent',)] * 14)
    writer.close()


def increment(index=True, **header):
    writer = StreamWriter(**INCREMENT_HEADER | header)
    write_increment(writer)
    return writer.finish(index)


# Whole pages of `write_small`, and what `write_increment` makes of them; pages left out are zero.
SMALL_PAGES = {0: TEXT_PAGE, 2: pack('<Q', 0x1122334455667788) * 512, 3: TEXT_PAGE, 35: BYTE_PAGE,
               **{31 + word: pack('<Q', word) * 512 for word in (1, 2, 3)}}
INCREMENT_PAGES = {0: TEXT_PAGE, 1: BYTE_PAGE, 3: pack('<Q', 9) * 512, 4: BYTE_PAGE,
                   37: pack('<Q', 9) * 512}


def write_large(writer):
    """Every frame type, value type, page class and codec; long values; two groups of a region."""
    writer.open('values')
    for code, name, data, _ in VALUES:
        writer.tag(f'tag.{name}', code, data)
    writer.tag('exact', 0, bytes(PIECE))
    writer.tag('long', 0, (b'0123456789abcdef' * (2 * PIECE // 16)) + b'tail')
    writer.close()
    writer.open('empty')
    writer.close()
    group = 8192 * 16
    writer.open('memory', 1)
    writer.regions((0, (group + 18) * PAGE), ((group + 18) * PAGE, 3 * PAGE), (1 << 40, 16 * PAGE))
    writer.zero_run(0, 16)
    writer.page_block(16, *[('fill', n) for n in range(16)])
    writer.frame(0x80001234, 1, 2, b'a frame of a later version')
    writer.page_block(32, *[('stored', BYTE_PAGE), ('stored', TEXT_PAGE)] * 8, codec=1)
    writer.zero_run(48, group - 48)
    writer.zero_run(group, 16)
    writer.block_index(0, group, base=0)
    writer.page_block(group + 16, ('stored', BYTE_PAGE), ('same', 17))
    writer.block_index(group, 18)
    writer.page_block(group + 18, ('same', group + 16), ('zero',), ('same', group + 18))
    writer.zero_run(group + 21, 16)
    writer.close()
    writer.open('last')
    writer.close()


def large_pages():
    """The pages of `write_large` that are not zero, by page number."""
    group = 8192 * 16
    pages = {16 + n: pack('<Q', n) * 512 for n in range(16)}
    pages |= {32 + n: (BYTE_PAGE, TEXT_PAGE)[n % 2] for n in range(16)}
    pages |= {group + 16: BYTE_PAGE, group + 17: pack('<Q', 1) * 512}
    return pages | {group + 18: BYTE_PAGE, group + 20: BYTE_PAGE}


def large(**header):
    header = {'minor': 3, 'created': 1_700_000_000_123} | header
    writer = StreamWriter(**header)
    write_large(writer)
    return writer.finish()
