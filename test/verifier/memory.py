"""Reads the frames of a memory context (format section 6) into a Memory.

Pages arrive in ascending order and without gaps, so the reader needs one number, the next page;
every rule about coverage is a comparison with it. Pages of the parent are left out of the store.
"""

from struct import Struct, unpack, unpack_from

from checkpoint import (
    CLASS_FILL, CLASS_PARENT, CLASS_SAME, CLASS_STORED, CLASS_ZERO, Group, Memory, Region,
)
from frame import BLOCK_INDEX, PAGE_BLOCK, PARENT_RUN, REGION_TABLE, ZERO_RUN, pad8
from lz4_block import Lz4Error, decode_block
from page_store import PAGE_BYTES

REGION_COUNT_MAX = 256
ADDRESS_MAX = 1 << 52
MEMORY_BYTES_MAX = 16 << 40
BLOCK_PAGES = 16
GROUP_PAGES = 8192 * BLOCK_PAGES
CODEC_RAW = 0
CODEC_LZ4 = 1
NO_BLOCK = 0xFFFFFFFF

_BLOCK_HEADER = Struct('<B3sIQ')


class MemoryReader:
    def __init__(self, has_parent):
        self.memory = Memory()
        self._has_parent = has_parent
        self._regions = iter(())
        self._region = None
        self._next_page = 0
        # The group of the last PAGE_BLOCK: its first page, and the frame offset of each of its
        # blocks by the block's first page. A BLOCK_INDEX can be of no other group.
        self._group = None
        self._block_offsets = {}
        self._handlers = {
            REGION_TABLE: self._region_table,
            ZERO_RUN: self._zero_run,
            PARENT_RUN: self._parent_run,
            PAGE_BLOCK: self._page_block,
            BLOCK_INDEX: self._block_index,
        }

    def read(self, frame):
        if not self.memory.regions and frame.type != REGION_TABLE:
            raise frame.damage('a memory context starts with REGION_TABLE')
        self._handlers[frame.type](frame)

    def finish(self, frame):
        """Called with the CONTEXT_CLOSE frame. Gives the page count."""
        if not self.memory.regions:
            raise frame.damage('a memory context without REGION_TABLE')
        total = self.memory.page_count
        if self._next_page != total:
            raise frame.damage(f'{self._next_page} of {total} pages are here')
        return total

    def _region_table(self, frame):
        if self.memory.regions:
            raise frame.damage('a second region table')
        count = frame.arg0
        if not 1 <= count <= REGION_COUNT_MAX:
            raise frame.damage(f'{count} regions')
        if frame.arg1 != PAGE_BYTES:
            raise frame.damage(f'pages of {frame.arg1} bytes')
        if len(frame.payload) != 16 * count:
            raise frame.damage(f'{len(frame.payload)} payload bytes for {count} regions')
        end = 0
        total = 0
        for base, size in zip(*[iter(unpack(f'<{2 * count}Q', frame.payload))] * 2):
            if base % PAGE_BYTES or size % PAGE_BYTES:
                raise frame.damage('a region that is not made of whole pages')
            if size == 0:
                raise frame.damage('an empty region')
            if base < end:
                raise frame.damage('regions overlap or do not ascend')
            end = base + size
            if end > ADDRESS_MAX:
                raise frame.damage('a region ends above 2^52')
            self.memory.regions.append(Region(base, size, total // PAGE_BYTES))
            total += size
            if total > MEMORY_BYTES_MAX:
                raise frame.damage('more than 16 TiB of memory')
        self._regions = iter(self.memory.regions)
        self._region = next(self._regions)

    def _room(self, frame):
        """Checks that the frame starts at the next page. Gives the pages left in its region."""
        if self._next_page == self._region.end_page:
            region = next(self._regions, None)
            if region is None:
                raise frame.damage('pages behind the last region')
            self._region = region
        if frame.arg0 != self._next_page:
            raise frame.damage(f'starts at page {frame.arg0} instead of {self._next_page}')
        return self._region.end_page - self._next_page

    def _zero_run(self, frame):
        if self._has_parent:
            raise frame.damage('in a checkpoint with a parent')
        self._run(frame, CLASS_ZERO)

    def _parent_run(self, frame):
        if not self._has_parent:
            raise frame.damage('in a checkpoint without a parent')
        self._run(frame, CLASS_PARENT)

    def _run(self, frame, kind):
        room = self._room(frame)
        count = frame.arg1
        if frame.payload:
            raise frame.damage('has a payload')
        if count == 0:
            raise frame.damage('an empty run')
        if count > room:
            raise frame.damage("crosses its region's end")
        if count != room and count % BLOCK_PAGES != 0:
            raise frame.damage('does not end at the end of a block')
        self.memory.class_counts[kind] += count
        self._next_page += count

    def _page_block(self, frame):
        count = min(self._room(frame), BLOCK_PAGES)
        if frame.arg1 != count:
            raise frame.damage(f'{frame.arg1} pages instead of {count}')
        if len(frame.payload) < 16:
            raise frame.damage('payload shorter than its fields')
        codec, reserved, encoded_bytes, packed = _BLOCK_HEADER.unpack_from(frame.payload)
        if codec not in (CODEC_RAW, CODEC_LZ4):
            raise frame.damage(f'unknown codec {codec}')
        if any(reserved):
            raise frame.damage('reserved bytes are not zero')
        if packed >> 4 * count:
            raise frame.damage('classes of pages behind the block')
        classes = [packed >> 4 * index & 15 for index in range(count)]
        if max(classes) > (CLASS_PARENT if self._has_parent else CLASS_SAME):
            raise frame.damage(f'page class {max(classes)} is not legal')
        if max(classes) == CLASS_ZERO and not self._has_parent:
            raise frame.damage('a block of zero pages')
        if min(classes) == CLASS_PARENT:
            raise frame.damage('a block of pages of the parent')
        word_count = classes.count(CLASS_FILL) + classes.count(CLASS_SAME)
        words_at = 16 + pad8(encoded_bytes)
        if len(frame.payload) != words_at + 8 * word_count:
            raise frame.damage(f'{len(frame.payload)} payload bytes, the fields say otherwise')
        if any(frame.payload[16 + encoded_bytes:words_at]):
            raise frame.damage('padding of the data is not zero')
        data = self._decode(frame, codec, frame.payload[16:16 + encoded_bytes],
                            classes.count(CLASS_STORED) * PAGE_BYTES)
        words = iter(unpack_from(f'<{word_count}Q', frame.payload, words_at))
        self._put_pages(frame, classes, data, words)
        self._note_place(frame)
        self.memory.encoded_bytes += encoded_bytes
        self._next_page += count

    def _note_place(self, frame):
        first = self._region.first_page
        group = first + (self._next_page - first) // GROUP_PAGES * GROUP_PAGES
        if group in self.memory.groups:
            raise frame.damage('stands behind the index of its group')
        if group != self._group:
            self._group = group
            self._block_offsets = {}
        self._block_offsets[self._next_page] = frame.offset

    def _decode(self, frame, codec, encoded, size):
        if codec == CODEC_RAW:
            if len(encoded) != size:
                raise frame.damage(f'{len(encoded)} raw bytes for stored pages of {size}')
            return encoded
        if size == 0:
            raise frame.damage('codec LZ4 without stored pages')
        if len(encoded) >= size:
            raise frame.damage('codec LZ4 that saves nothing')
        try:
            return decode_block(encoded, size)
        except Lz4Error as error:
            raise frame.damage(f'LZ4: {error}') from None

    def _put_pages(self, frame, classes, data, words):
        pages = self.memory.pages
        stored_at = 0
        for page, kind in enumerate(classes, self._next_page):
            self.memory.class_counts[kind] += 1
            if kind == CLASS_ZERO and self._has_parent:
                pages.put_zero(page)
            elif kind == CLASS_FILL:
                pages.put_fill(page, next(words))
            elif kind == CLASS_STORED:
                pages.put_stored(page, data[stored_at:stored_at + PAGE_BYTES])
                stored_at += PAGE_BYTES
            elif kind == CLASS_SAME:
                source = next(words)
                if source >= page:
                    raise frame.damage(f'page {page} is the same as page {source}, not before it')
                if self._has_parent and source not in pages:
                    raise frame.damage(f'page {page} is the same as page {source} of the parent')
                pages.put_same(page, source)

    def _block_index(self, frame):
        first, count = frame.arg0, frame.arg1
        region = next((r for r in self.memory.regions if r.first_page <= first < r.end_page), None)
        if region is None or (first - region.first_page) % GROUP_PAGES != 0:
            raise frame.damage(f'no group starts at page {first}')
        if count != min(region.end_page - first, GROUP_PAGES):
            raise frame.damage(f'{count} pages are not the group')
        if first in self.memory.groups:
            raise frame.damage('a second index of the group')
        if first != self._group:
            raise frame.damage('not of the group of the last PAGE_BLOCK')
        blocks = range(first, first + count, BLOCK_PAGES)
        if len(frame.payload) != 8 + 4 * len(blocks):
            raise frame.damage(f'{len(frame.payload)} payload bytes for {len(blocks)} blocks')
        base, *entries = unpack(f'<Q{len(blocks)}I', frame.payload)
        for page, entry in zip(blocks, entries):
            offset = None if entry == NO_BLOCK else base + 8 * entry
            if offset != self._block_offsets.get(page):
                raise frame.damage(f'wrong place of the block of page {page}')
        self.memory.groups[first] = Group(first, count, frame.offset)
