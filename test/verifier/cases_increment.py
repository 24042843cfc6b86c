"""Rules of guest memory with a parent: PARENT_RUN and class 4 (section 6 of the format)."""

from encoder import NO_BLOCK, PAGE_BLOCK, PARENT_RUN, ZERO_RUN, block_payload
from rule import Cases, in_memory
from sample import BYTE_PAGE, INCREMENT_HEADER

CASES = Cases()
refused, legal = CASES.refused, CASES.legal


def case(name, rule, message, build):
    build.__name__ = name
    build.__doc__ = rule
    refused(message)(build)


def first_frame(kind, payload=b'', header=INCREMENT_HEADER):
    """A frame of pages 0 to 15, of regions of 20 and 16 pages."""
    writer = in_memory(**header)
    writer.frame(kind, 0, 16, payload)
    return writer.out


def runs(*frames):
    """PARENT_RUN frames: (first, count)."""
    writer = in_memory(**INCREMENT_HEADER)
    for first, count in frames:
        writer.parent_run(first, count)
    writer.close(36)
    return writer.out


def last_block(payload, classes=None):
    """A block of pages 16 to 19, behind a block of the classes or else a run of the parent's."""
    writer = in_memory(**INCREMENT_HEADER)
    if classes is None:
        writer.parent_run(0, 16)
    else:
        writer.frame(PAGE_BLOCK, 0, 16, block_payload(classes))
    writer.frame(PAGE_BLOCK, 16, 4, payload)
    return writer.out


case('zero_run', 'with a parent there is no ZERO_RUN', 'in a checkpoint with a parent',
     lambda: first_frame(ZERO_RUN))
case('run_without_parent', 'without a parent there is no PARENT_RUN',
     'in a checkpoint without a parent', lambda: first_frame(PARENT_RUN, header={}))
case('class_without_parent', 'class 4 is legal with a parent only', 'page class 4 is not legal',
     lambda: first_frame(PAGE_BLOCK, block_payload([4] + [0] * 15), header={}))
for kind in range(5, 16):
    case(f'class_{kind}', 'classes are 0 to 4', f'page class {kind} is not legal',
         lambda kind=kind: first_frame(PAGE_BLOCK, block_payload([kind] + [0] * 15)))
case('block_all_parent', 'a block of only class 4 is in a PARENT_RUN', 'pages of the parent',
     lambda: first_frame(PAGE_BLOCK, block_payload([4] * 16)))
case('short_block_all_parent', 'a block of only class 4 is in a PARENT_RUN', 'pages of the parent',
     lambda: last_block(block_payload([4] * 4)))
case('word_of_parent_page', 'there is no u64 for a page of class 4', '24 payload bytes',
     lambda: first_frame(PAGE_BLOCK, block_payload([4] + [0] * 15, words=[0])))
case('run_payload', 'PARENT_RUN has no payload', 'has a payload',
     lambda: first_frame(PARENT_RUN, b'\0'))
case('run_empty', 'the page count is not zero', 'an empty run', lambda: runs((0, 0)))
case('run_inside_block', 'a run ends at the end of a block', 'end of a block',
     lambda: runs((0, 17)))
case('run_across_regions', "frames never cross a region's end", 'crosses its region',
     lambda: runs((0, 36)))
case('page_gap', 'every page is covered', 'starts at page 17 instead of 16',
     lambda: runs((0, 16), (17, 3)))
case('page_twice', 'a page is covered once', 'starts at page 0 instead of 16',
     lambda: runs((0, 16), (0, 16)))
case('pages_missing', 'every page is covered', '20 of 36 pages', lambda: runs((0, 20)))
case('same_as_parent_in_block', 'a same page names no page of class parent',
     'page 1 is the same as page 0 of the parent',
     lambda: first_frame(PAGE_BLOCK, block_payload([4, 3] + [0] * 14, words=(0,))))
case('same_as_parent_in_earlier_block', 'a same page names no page of class parent',
     'page 16 is the same as page 3 of the parent',
     lambda: last_block(block_payload([3, 0, 0, 0], words=(3,)), [0, 0, 0, 4] + [0] * 12))
case('same_as_page_of_run', 'a same page names no page that a PARENT_RUN covers',
     'page 16 is the same as page 15 of the parent',
     lambda: last_block(block_payload([3, 0, 0, 0], words=(15,))))
case('same_as_same_as_later', 'a same page names a smaller page', 'page 0 is the same as page 1',
     lambda: first_frame(PAGE_BLOCK, block_payload([3, 1] + [4] * 14, words=(1, 5))))


@refused('wrong place')
def index_invents_block_in_run():
    """0xFFFFFFFF for blocks in a PARENT_RUN"""
    writer = in_memory(**INCREMENT_HEADER)
    writer.page_block(0, *[('zero',)] * 16)
    writer.parent_run(16, 4)
    writer.block_index(0, 20, entries=[0, 0])
    return writer.out


@refused('not of the group of the last PAGE_BLOCK')
def index_of_run():
    """a group without any PAGE_BLOCK has no BLOCK_INDEX"""
    writer = in_memory(**INCREMENT_HEADER)
    writer.parent_run(0, 20)
    writer.block_index(0, 20, 0, [NO_BLOCK, NO_BLOCK])
    return writer.out


@legal()
def every_class():
    """a block of zeros is a PAGE_BLOCK; a same page may name an earlier one of any own class"""
    writer = in_memory(**INCREMENT_HEADER)
    writer.page_block(0, ('parent',), ('zero',), ('same', 1), ('fill', 7), ('stored', BYTE_PAGE),
                      *[('same', page) for page in range(2, 5)], *[('parent',)] * 8, codec=1)
    writer.page_block(16, *[('zero',)] * 4)
    writer.block_index(0, 20)
    writer.page_block(20, ('same', 16), ('same', 7), *[('parent',)] * 14)
    writer.close()
    return writer.finish()


@legal()
def runs_side_by_side():
    """nothing has changed; a run may be cut at any block"""
    writer = in_memory(**INCREMENT_HEADER)
    for first, count in ((0, 16), (16, 4), (20, 16)):
        writer.parent_run(first, count)
    writer.close()
    return writer.finish()


@legal()
def index_between_runs():
    """runs may stand between the last block of a group and its index"""
    writer = in_memory(**INCREMENT_HEADER)
    writer.page_block(0, *[('fill', 1)] * 16)
    writer.parent_run(16, 4)
    writer.parent_run(20, 16)
    writer.block_index(0, 20)
    writer.close()
    return writer.finish()
