"""Rules of stream, header, frame, END and root digest: format sections 1 to 4, 7, 8 and 10."""

from struct import pack

from encoder import (
    BLOCK_INDEX, END, INDEX, PAGE, PARENT_ROOT, PARENT_UUID, REGIONS, TAG, TAG_MORE, ZERO_RUN,
    PAGE_BLOCK, PARENT_RUN, StreamWriter, block_payload, header_bytes, tag_payload,
)
from rule import Cases, in_memory, in_values, whole
from sample import INCREMENT_HEADER, small, write_increment, write_small

CASES = Cases()
refused, legal = CASES.refused, CASES.legal


def header_case(name, message, rule, **fields):
    """One case of a header with a field set, in front of a stream that is otherwise sound."""
    def build():
        return small(**fields)
    build.__name__ = f'header_{name}'
    build.__doc__ = rule
    refused(message)(build)


header_case('magic', 'not the magic', 'the magic is fixed', magic=b'\x89CKP\n\x1a\n\n')
header_case('digest', 'header: digest mismatch', 'the header digest covers bytes 0 to 119',
            digest=1)
header_case('newer', 'unsupported major version 2', 'another major version is refused', major=2)
header_case('older', 'unsupported major version 0', 'another major version is refused', major=0)
header_case('bytes', '132 header bytes', 'header bytes are 128', size=132)
header_case('flags', 'header: flags', 'the header flags are zero', flags=1)
header_case('reserved', 'reserved bytes', 'bytes 104 to 119 are zero', reserved=bytes(15) + b'\1')
header_case('epoch', 'epoch 1 without', 'the epoch is 0 without parent', epoch=1)
header_case('uuid', 'a UUID of zeros', 'the UUID is not all zero', uuid=bytes(16))
header_case('created', 'creation time of 2^53', 'the creation time is below 2^53', created=2**53)
header_case('parent_root', 'belong together', 'the parent root is zero without parent',
            parent_root=PARENT_ROOT)
header_case('parent_epoch', 'epoch 0 with', "the epoch is greater than the parent's",
            parent=PARENT_UUID, parent_root=PARENT_ROOT)
header_case('parent_without_root', 'belong together', 'a parent has a root digest',
            parent=PARENT_UUID, epoch=1)
header_case('parent_minor', 'minor version 0 with a parent', 'a parent needs minor version 1',
            minor=0, **INCREMENT_HEADER)


@refused('header: digest mismatch')
def header_digest_before_fields():
    """the digest of the header comes before its fields"""
    return small(digest=7, major=2, flags=1)


@legal()
def greater_minor_version():
    """a greater minor version is legal"""
    return small(minor=65_535, created=2**53 - 1)


@legal()
def checkpoint_without_contexts():
    """a sequence of no contexts is a checkpoint"""
    return StreamWriter().finish()


@legal()
def stream_without_index():
    """index and footer are optional"""
    return whole(index=False)


@refused('truncated: the stream ends inside the stream header')
def nothing_at_all():
    """a stream has a header"""
    return b''


@refused('truncated: the stream ends inside a frame header')
def no_end_frame():
    """a stream that ends before its END is truncated"""
    writer = in_values()
    writer.close()
    return writer.out


@refused('truncated: the stream ends inside a frame header')
def no_index_behind_end():
    """a stream shorter than END announces is truncated"""
    return whole(index=False, index_bytes=512)


@refused('trailing data')
def bytes_behind_footer():
    """bytes behind the footer are trailing data"""
    return whole() + b'\0'


@refused('trailing data')
def index_that_end_does_not_announce():
    """bytes behind END are trailing data when it announces none"""
    return whole(index=False) + bytes(64)


def frame_case(name, message, rule, **edit):
    def build():
        writer = in_values()
        writer.frame(TAG, 3, 0, tag_payload(b'tag', b'\1'), **edit)
        writer.close(1)
        return writer.finish()
    build.__name__ = name
    build.__doc__ = rule
    refused(message)(build)


frame_case('frame_flags', 'frame flags', 'frame flags are zero', flags=1)
frame_case('frame_sequence_gap', 'sequence 2 instead of 1', 'sequence has no gaps', sequence=2)
frame_case('frame_sequence_again', 'sequence 0 instead of 1', 'sequence has no repeats',
           sequence=0)
frame_case('frame_payload_digest', 'payload digest', 'the payload digest matches', payload_digest=1)
frame_case('frame_header_digest', 'header digest', 'the header digest matches', header_digest=1)
frame_case('frame_of_other_checkpoint', 'header digest', 'the binding has the UUID',
           uuid=PARENT_UUID)
frame_case('frame_of_other_epoch', 'header digest', 'the binding has the epoch', epoch=1)
frame_case('frame_of_other_place', 'header digest', 'the binding has the offset', offset=4096)
frame_case('frame_padding', 'payload padding', 'padding is zero', padding=bytes(6) + b'\1')
frame_case('frame_too_long', 'a payload of 1114113 bytes', 'a payload has at most 1114112 bytes',
           payload_bytes=1_114_113)
frame_case('frame_digest_before_bounds', 'header digest', 'header digest, then bounds',
           header_digest=1, payload_bytes=1_114_113)
frame_case('frame_bounds_before_payload', 'frame flags', 'bounds, then payload digest',
           flags=1, payload_digest=1)


@refused('payload digest mismatch')
def payload_digest_before_content():
    """nothing is decoded before its digest matched"""
    writer = in_values()
    writer.frame(TAG, 99, 99, b'', payload_digest=1)
    return writer.out


@legal()
def longest_payload_and_unknown_optional_frame():
    """a payload has at most 1114112 bytes; an unknown optional frame is passed over"""
    writer = StreamWriter()
    writer.frame(0x8000FFFF, 1, 2, b'\xaa' * 1_114_112)
    write_small(writer)
    return writer.finish()


@legal()
def unknown_optional_frames_everywhere():
    """a frame of an unknown optional type may stand before, between and behind all others"""
    writer = StreamWriter()
    writer.frame(0x80000000)
    writer.open('values')
    writer.frame(0x80000001)
    writer.tag('tag', 3, b'\1')
    writer.frame(0x80000002)
    writer.close()
    writer.frame(0xFFFFFFFF)
    writer.open('memory', 1)
    writer.regions((0, PAGE))
    writer.frame(0x80000010)
    writer.page_block(0, ('fill', 1))
    writer.frame(0x80000012)
    writer.block_index(0, 1)
    writer.close()
    writer.frame(0x80000020)
    return writer.finish()


@refused('payload digest mismatch')
def unknown_optional_frame_is_checked():
    """the digests of an unknown optional frame are checked"""
    writer = StreamWriter()
    writer.frame(0x8000FFFF, 1, 2, b'later', payload_digest=1)
    return writer.finish()


@refused('unsupported critical frame')
def unknown_critical_frame():
    """a reader that does not know a critical frame stops"""
    writer = StreamWriter()
    writer.frame(0x00000005)
    return writer.finish()


def place_case(name, message, rule, kind, writer_of, payload=b'', arg0=0, arg1=0):
    """A frame in a state where the table of section 4 does not allow it."""
    def build():
        writer = writer_of()
        writer.frame(kind, arg0, arg1, payload)
        return writer.out
    build.__name__ = 'place_' + name
    build.__doc__ = rule
    refused(message)(build)


def with_open_value():
    writer = in_values()
    writer.frame(TAG, 0, 0, tag_payload(b'tag', bytes(1 << 20), size=(1 << 20) + 1))
    return writer


def fresh_memory(**header):
    writer = StreamWriter(**header)
    writer.open('memory', 1)
    return writer


place_case('open_in_open', 'a context is open', 'CONTEXT_OPEN: no context open', 1, in_values)
place_case('close_of_none', 'no context is open', 'CONTEXT_CLOSE: context open', 2, StreamWriter)
place_case('tag_outside', 'outside a value', 'TAG: in a value context', TAG, StreamWriter,
           tag_payload(b'tag', b''))
place_case('tag_in_memory', 'outside a value', 'TAG: in a value context', TAG, in_memory,
           tag_payload(b'tag', b''))
place_case('more_of_nothing', 'no value is incomplete', 'TAG_MORE: the value is not complete',
           TAG_MORE, in_values, b'data')
place_case('more_outside', 'no value is incomplete', 'TAG_MORE: directly behind TAG', TAG_MORE,
           StreamWriter, b'data')
place_case('tag_in_value', 'inside a value', 'TAG_MORE stands directly behind', TAG,
           with_open_value, tag_payload(b'other', b''))
place_case('close_in_value', 'inside a value', 'a value is complete before its context closes', 2,
           with_open_value, arg1=1)
place_case('end_in_value', 'inside a value', 'a value is complete before END', END, with_open_value)
place_case('unknown_in_value', 'inside a value', 'TAG_MORE stands directly behind', 0x8000FFFF,
           with_open_value)
place_case('unknown_before_regions', 'before REGION_TABLE', 'REGION_TABLE: first frame', 0x8000FFFF,
           fresh_memory)
place_case('regions_outside', 'outside a memory', 'REGION_TABLE: in a memory context', REGIONS,
           StreamWriter, pack('<QQ', 0, PAGE), 1, PAGE)
place_case('regions_in_values', 'outside a memory', 'REGION_TABLE: in a memory context', REGIONS,
           in_values, pack('<QQ', 0, PAGE), 1, PAGE)
place_case('regions_again', 'second region table', 'REGION_TABLE: first frame', REGIONS, in_memory,
           pack('<QQ', 0, PAGE), 1, PAGE)
place_case('zero_run_first', 'starts with REGION_TABLE', 'REGION_TABLE: first frame', ZERO_RUN,
           fresh_memory, arg1=16)
place_case('block_first', 'starts with REGION_TABLE', 'REGION_TABLE: first frame', PAGE_BLOCK,
           fresh_memory, block_payload([1], words=[5]), 0, 1)
place_case('close_without_regions', 'without REGION_TABLE', 'a memory context has a table', 2,
           fresh_memory)
place_case('zero_run_outside', 'outside a memory', 'ZERO_RUN: in a memory context', ZERO_RUN,
           in_values, arg1=16)
place_case('parent_run_first', 'starts with REGION_TABLE', 'REGION_TABLE: first frame', PARENT_RUN,
           lambda: fresh_memory(**INCREMENT_HEADER), arg1=16)
place_case('parent_run_outside', 'outside a memory', 'PARENT_RUN: in a memory context', PARENT_RUN,
           lambda: in_values(**INCREMENT_HEADER), arg1=16)
place_case('block_outside', 'outside a memory', 'PAGE_BLOCK: in a memory context', PAGE_BLOCK,
           in_values, block_payload([1], words=[5]), 0, 1)
place_case('block_index_outside', 'outside a memory', 'BLOCK_INDEX: in a memory context',
           BLOCK_INDEX, StreamWriter, bytes(16))
place_case('end_in_context', 'a context is open', 'END: no context open', END, in_values)
place_case('index_before_end', 'stands before END', 'INDEX: after END', INDEX, StreamWriter,
           bytes(8), 0, 8)


@refused('tells 0 frames, there are')
def end_frame_count():
    """END arg0 is the number of frames before it"""
    return whole(count=0)


def end_size_case(index_bytes, message):
    def build():
        return whole(index=False, index_bytes=index_bytes) + bytes(index_bytes)
    build.__name__ = f'end_announces_{index_bytes}'
    build.__doc__ = 'END arg1 is the bytes of index frames and footer, or 0'
    refused(message)(build)


for size in (1, 64, 120, 132):
    end_size_case(size, f'{size} bytes are no index and footer')


@refused('96 payload bytes instead of 104')
def end_payload():
    """the payload of END has 104 bytes"""
    return whole(payload=bytes(96))


def end_count_case(key, message):
    def build():
        return whole(**{key: 77})
    build.__name__ = f'end_counts_{key}'
    build.__doc__ = 'a reader compares each count of END with its own'
    refused(f'tells 77 {message}, there are')(build)


for key, message in (('contexts', 'contexts'), ('tags', 'tags'), ('pages', 'pages'),
                     ('zero', 'zero pages'), ('fill', 'fill pages'), ('stored', 'stored pages'),
                     ('same', 'same pages'), ('parent', 'parent pages'),
                     ('encoded', 'encoded bytes')):
    end_count_case(key, message)


def end_increment_case(key, message):
    def build():
        writer = StreamWriter(**INCREMENT_HEADER)
        write_increment(writer)
        return writer.finish(**{key: 77})
    build.__name__ = f'end_of_increment_counts_{key}'
    build.__doc__ = 'zero pages are those of class 0, parent pages those of runs and of class 4'
    refused(f'tells 77 {message}')(build)


end_increment_case('zero', 'zero pages, there are 5')
end_increment_case('parent', 'parent pages, there are 41')


@refused('root digest mismatch')
def end_root():
    """END has the root digest"""
    return whole(root=bytes(32))


@refused('root digest mismatch')
def root_covers_header():
    """the root digest covers the 128 bytes of the stream header"""
    stream = small(index=False)
    return header_bytes(created=5) + stream[128:]
