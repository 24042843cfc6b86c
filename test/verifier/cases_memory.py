"""Rules of guest memory: section 6 of the format."""

from encoder import NO_BLOCK, PAGE, PAGE_BLOCK, StreamWriter, block_payload
from lz4_encoder import encode_block
from rule import Cases, in_memory
from sample import BYTE_PAGE, TEXT_PAGE

CASES = Cases()
refused, legal = CASES.refused, CASES.legal
TIB = 1 << 40
TOP = 1 << 52


def case(name, rule, message, build):
    build.__name__ = name
    build.__doc__ = rule
    refused(message)(build)


def table(*regions, **edit):
    writer = StreamWriter()
    writer.open('memory', 1)
    writer.regions(*regions, **edit)
    return writer.out


case('regions_none', 'there are 1 to 256 regions', ' 0 regions', lambda: table())
case('regions_257', 'there are 1 to 256 regions', '257 regions',
     lambda: table(*[(n * PAGE, PAGE) for n in range(257)]))
case('regions_fewer', 'the payload has the regions', '32 payload bytes for 3 regions',
     lambda: table((0, PAGE), (PAGE, PAGE), count=3))
case('regions_more', 'the payload has only the regions', '32 payload bytes for 1 regions',
     lambda: table((0, PAGE), (PAGE, PAGE), count=1))
case('page_bytes', 'arg1 is 4096', 'pages of 8192 bytes', lambda: table((0, 8192), page_bytes=8192))
case('base_unaligned', 'a base is a multiple of 4096', 'not made of whole pages',
     lambda: table((512, PAGE)))
case('bytes_unaligned', 'bytes are a multiple of 4096', 'not made of whole pages',
     lambda: table((0, PAGE + 512)))
case('region_empty', 'bytes is not zero', 'an empty region', lambda: table((0, PAGE), (PAGE, 0)))
case('regions_overlap', 'regions do not overlap', 'overlap or do not ascend',
     lambda: table((0, 2 * PAGE), (PAGE, 2 * PAGE)))
case('regions_descend', 'regions ascend', 'overlap or do not ascend',
     lambda: table((4 * PAGE, PAGE), (0, PAGE)))
case('region_above_2_52', 'base + bytes does not exceed 2^52', 'ends above 2^52',
     lambda: table((TOP - PAGE, 2 * PAGE)))
case('region_wraps', 'base + bytes does not exceed 2^52, without overflow', 'ends above 2^52',
     lambda: table((2**64 - PAGE, PAGE)))
case('memory_above_16_tib', 'all regions are at most 16 TiB', 'more than 16 TiB',
     lambda: table((0, 16 * TIB), (32 * TIB, PAGE)))


@legal()
def regions_at_the_limits():
    """adjacent regions, 256 of them, the end at 2^52, 16 TiB in all"""
    writer = in_memory(*[(n * PAGE, PAGE) for n in range(255)], (TOP - 15 * TIB, 15 * TIB))
    for number in range(255):
        writer.zero_run(number, 1)
    writer.zero_run(255, 15 * TIB // PAGE)
    writer.close()
    return writer.finish()


@legal()
def memory_of_16_tib():
    """16 TiB are legal"""
    writer = in_memory((0, 16 * TIB))
    writer.zero_run(0, 16 * TIB // PAGE)
    writer.close()
    return writer.finish()


def pages(*frames):
    """Frames of pages in the two regions of 20 and 16 pages: (first, count) is a run of zeros."""
    writer = in_memory()
    for first, count in frames:
        writer.zero_run(first, count)
    writer.close(36)
    return writer.out


case('page_gap', 'every page is covered', 'starts at page 17 instead of 16',
     lambda: pages((0, 16), (17, 3)))
case('page_twice', 'a page is covered once', 'starts at page 0 instead of 16',
     lambda: pages((0, 16), (0, 16)))
case('pages_descend', 'pages ascend', 'starts at page 20 instead of 0', lambda: pages((20, 16)))
case('pages_missing', 'every page is covered', '20 of 36 pages', lambda: pages((0, 20)))
case('pages_none', 'every page is covered', '0 of 36 pages', lambda: pages())
case('pages_behind', 'no page is behind the last region', 'behind the last region',
     lambda: pages((0, 20), (20, 16), (36, 16)))
case('run_across_regions', "frames never cross a region's end", 'crosses its region',
     lambda: pages((0, 36)))
case('run_overflow', "frames never cross a region's end", 'crosses its region',
     lambda: pages((0, 2**64 - 1)))
case('run_empty', 'the page count is not zero', 'an empty run', lambda: pages((0, 0)))
case('run_inside_block', 'a run ends at the end of a block', 'end of a block',
     lambda: pages((0, 17)))


@refused('has a payload')
def run_with_payload():
    """ZERO_RUN has no payload"""
    writer = in_memory()
    writer.zero_run(0, 16, b'\0')
    return writer.out


@refused('tells 35 tags or pages, there are 36')
def close_page_count():
    """CONTEXT_CLOSE of a memory context has the number of pages"""
    writer = in_memory()
    writer.zero_run(0, 20)
    writer.zero_run(20, 16)
    writer.close(35)
    return writer.out


@legal()
def runs_side_by_side():
    """a run of zeros may be cut at any block"""
    writer = in_memory()
    for first, count in ((0, 16), (16, 4), (20, 16)):
        writer.zero_run(first, count)
    writer.close()
    return writer.finish()


def block(payload, count=16, first=0):
    writer = in_memory()
    writer.frame(PAGE_BLOCK, first, count, payload)
    return writer.out


FILLS = [1] * 16
WORDS = range(16)
STORED = [2] + [0] * 15
LZ4_PAGE = encode_block(TEXT_PAGE)

case('block_first_page', 'a block starts at its first page', 'starts at page 16 instead of 0',
     lambda: block(block_payload(FILLS, words=WORDS), first=16))
case('block_short', 'a block is whole', '15 pages instead of 16',
     lambda: block(block_payload(FILLS[:15], words=range(15)), 15))
case('block_long', 'a block has 16 pages', '17 pages instead of 16',
     lambda: block(block_payload(FILLS, words=WORDS), 17))


@refused('16 pages instead of 4')
def block_across_regions():
    """the last block of a region is shorter"""
    writer = in_memory()
    writer.zero_run(0, 16)
    writer.frame(PAGE_BLOCK, 16, 16, block_payload(FILLS, words=WORDS))
    return writer.out


@refused('classes of pages behind the block')
def unused_class_bits():
    """unused bits of the classes are zero"""
    writer = in_memory()
    writer.zero_run(0, 16)
    writer.frame(PAGE_BLOCK, 16, 4, block_payload([1] * 5, words=range(4)))
    return writer.out


case('block_header', 'the payload has its fields', 'shorter than its fields',
     lambda: block(bytes(15)))
case('codec_unknown', 'the codec is 0 or 1', 'unknown codec 2',
     lambda: block(block_payload(FILLS, words=WORDS, codec=2)))
case('block_reserved', 'bytes 1 to 3 are zero', 'reserved bytes',
     lambda: block(block_payload(FILLS, words=WORDS, reserved=b'\0\0\1')))
for kind in range(4, 16):
    case(f'class_{kind}', 'classes are 0 to 3 without a parent', f'page class {kind} is not legal',
         lambda kind=kind: block(block_payload([kind] + [0] * 15)))
case('block_all_zero', 'a block of zeros is in a ZERO_RUN', 'a block of zero pages',
     lambda: block(block_payload([0] * 16)))
case('words_missing', 'there is a u64 for each page of class 1 and 3', '136 payload bytes',
     lambda: block(block_payload(FILLS, words=range(15))))
case('words_more', 'the payload ends with the last u64', '152 payload bytes',
     lambda: block(block_payload(FILLS, words=range(17))))
case('data_beyond', 'the payload has E bytes of data', 'payload bytes, the fields',
     lambda: block(block_payload(STORED, BYTE_PAGE, size=2**32 - 1)))
case('data_padding', 'padding of the data is zero', 'padding of the data',
     lambda: block(block_payload(STORED, LZ4_PAGE, codec=1,
                                 padding=b'\1' * (-len(LZ4_PAGE) % 8))))
case('raw_short', 'codec 0: E is S', '4088 raw bytes for stored pages of 4096',
     lambda: block(block_payload(STORED, BYTE_PAGE[:4088])))
case('raw_long', 'codec 0: E is S', '8192 raw bytes for stored pages of 4096',
     lambda: block(block_payload(STORED, BYTE_PAGE * 2)))
case('raw_without_stored', 'without stored pages E is 0', '8 raw bytes for stored pages of 0',
     lambda: block(block_payload(FILLS, bytes(8), words=WORDS)))
case('lz4_without_stored', 'without stored pages the codec is 0', 'LZ4 without stored',
     lambda: block(block_payload(FILLS, words=WORDS, codec=1)))
case('lz4_as_large', 'codec 1: E is less than S', 'saves nothing',
     lambda: block(block_payload(STORED, bytes(4096), codec=1)))
case('lz4_too_short', 'the data decode to exactly S bytes', 'LZ4: the block decodes to 4095',
     lambda: block(block_payload(STORED, encode_block(TEXT_PAGE[:-1]), codec=1)))
case('lz4_too_long', 'the data decode to exactly S bytes', 'LZ4: ',
     lambda: block(block_payload(STORED, encode_block(TEXT_PAGE + b'more'), codec=1)))
case('lz4_illegal', 'the data are one LZ4 block', 'LZ4: a match reaches before',
     lambda: block(block_payload(STORED, b'\x10a\2\0', codec=1)))
case('same_as_itself', 'a same page names a smaller page', 'page 1 is the same as page 1',
     lambda: block(block_payload([1, 3] + [0] * 14, words=(5, 1))))
case('same_as_later', 'a same page names a smaller page', 'page 0 is the same as page 1',
     lambda: block(block_payload([3, 1] + [0] * 14, words=(1, 5))))


@legal()
def equal_pages_of_every_class():
    """a page may equal any earlier page; a class is a choice of the writer"""
    writer = in_memory()
    stored_zeros = [('stored', bytes(PAGE)), ('fill', 0), ('stored', b'\7' * PAGE)]
    writer.page_block(0, *stored_zeros, ('same', 0), ('same', 1), ('same', 2), ('same', 5),
                      *[('zero',)] * 9, codec=1)
    writer.zero_run(16, 4)
    writer.page_block(20, ('same', 17), ('same', 5), *[('same', 7)] * 14)
    writer.close()
    return writer.finish()


def indexed(first, count, base=None, entries=None, again=False):
    """A BLOCK_INDEX behind the first region, whose blocks are one of fills and a run of zeros."""
    writer = in_memory()
    writer.page_block(0, *[('fill', word) for word in WORDS])
    writer.zero_run(16, 4)
    for _ in range(2 if again else 1):
        writer.block_index(first, count, base, entries)
    return writer.out


# Offset of the PAGE_BLOCK of `indexed`: behind stream header, CONTEXT_OPEN and REGION_TABLE.
BLOCK_PLACE = 128 + (56 + 8) + (56 + 32)

case('index_of_no_group', 'arg0 is the first page of a group', 'no group starts at page 16',
     lambda: indexed(16, 4, 0, [NO_BLOCK]))
case('index_behind_memory', 'arg0 is the first page of a group', 'no group starts at page 36',
     lambda: indexed(36, 16, 0, [NO_BLOCK]))
case('index_page_count', 'arg1 is the page count of the group', '16 pages are not the group',
     lambda: indexed(0, 16))
case('index_again', 'a group has one index', 'a second index', lambda: indexed(0, 20, again=True))
case('index_short', 'one u32 for each block', 'payload bytes for 2 blocks',
     lambda: indexed(0, 20, 0, [0]))
case('index_long', 'one u32 for each block', 'payload bytes for 2 blocks',
     lambda: indexed(0, 20, 0, [0, NO_BLOCK, NO_BLOCK]))
case('index_wrong_place', 'an entry is the place of its PAGE_BLOCK', 'wrong place',
     lambda: indexed(0, 20, BLOCK_PLACE - 8, [0, NO_BLOCK]))
case('index_odd_base', 'an entry is the place of its PAGE_BLOCK', 'wrong place',
     lambda: indexed(0, 20, BLOCK_PLACE - 4, [0, NO_BLOCK]))
case('index_forgets_block', '0xFFFFFFFF only for blocks in a ZERO_RUN', 'wrong place',
     lambda: indexed(0, 20, 0, [NO_BLOCK, NO_BLOCK]))
case('index_invents_block', '0xFFFFFFFF for blocks in a ZERO_RUN', 'wrong place',
     lambda: indexed(0, 20, BLOCK_PLACE, [0, 0]))


def two_groups(*frames):
    """Two regions, so two groups: the frames named, each right by itself, in the order given."""
    writer = in_memory()
    write = {
        'block': lambda: writer.page_block(0, *[('fill', word) for word in WORDS]),
        'zeros': lambda: writer.zero_run(16, 4),
        'last block': lambda: writer.page_block(16, *[('fill', word) for word in range(4)]),
        'index': lambda: writer.block_index(0, 20),
        'later zeros': lambda: writer.zero_run(20, 16),
        'later block': lambda: writer.page_block(20, *[('fill', word) for word in WORDS]),
        'later index': lambda: writer.block_index(20, 16, base=8),
    }
    for name in frames:
        write[name]()
    writer.close()
    return writer.finish()


for number, frames in enumerate([
    ('block', 'index', 'zeros', 'later block', 'later index'),
    ('block', 'zeros', 'index', 'later block', 'later index'),
    ('block', 'zeros', 'later zeros', 'index'),
    ('block', 'last block', 'index', 'later block'),
    ('block', 'zeros', 'later block', 'later index'),
]):
    case(f'index_place_{number}', 'an index stands behind the last block of its group and before '
         'the first of a later one, or nowhere', None, lambda frames=frames: two_groups(*frames))

NOT_LAST = 'not of the group of the last PAGE_BLOCK'
case('index_too_late', 'an index stands before the first block of a later group', NOT_LAST,
     lambda: two_groups('block', 'zeros', 'later block', 'index'))
case('index_too_early', 'an index stands behind the last block of its group',
     'behind the index of its group', lambda: two_groups('block', 'index', 'last block'))
case('index_of_zeros', 'a group without any PAGE_BLOCK has no BLOCK_INDEX', NOT_LAST,
     lambda: indexed(20, 16, 0, [NO_BLOCK]))


@refused(NOT_LAST)
def index_of_nothing():
    """a group without any PAGE_BLOCK has no BLOCK_INDEX"""
    writer = in_memory()
    writer.zero_run(0, 20)
    writer.block_index(0, 20, 0, [NO_BLOCK, NO_BLOCK])
    return writer.out
