"""The model of a checkpoint that was read and found sound. Sizes are bytes, a page has 4096.

A memory context keeps its pages in a PageStore with a spool file: call `close()` when done.
"""

from dataclasses import dataclass, field

import value
from page_store import PAGE_BYTES, PageStore

KIND_VALUES = 0
KIND_MEMORY = 1

CLASS_NAMES = ('zero', 'fill', 'stored', 'same', 'parent')
CLASS_ZERO, CLASS_FILL, CLASS_STORED, CLASS_SAME, CLASS_PARENT = range(5)


@dataclass
class Tag:
    name: str
    type: int
    byte_count: int
    offset: int
    data: bytes = b''

    @property
    def type_name(self):
        return value.type_name(self.type)

    @property
    def value(self):
        return value.decode(self.type, self.data)


@dataclass
class Context:
    name: str
    kind: int
    ordinal: int
    offset: int
    # Offset behind its CONTEXT_CLOSE frame.
    end: int = 0
    tags: dict = field(default_factory=dict)


@dataclass
class Region:
    base: int
    byte_count: int
    first_page: int

    @property
    def page_count(self):
        return self.byte_count // PAGE_BYTES

    @property
    def end_page(self):
        return self.first_page + self.page_count


@dataclass
class Group:
    """A group of blocks that has a BLOCK_INDEX frame, at `offset`."""
    first_page: int
    page_count: int
    offset: int


@dataclass
class Memory:
    regions: list = field(default_factory=list)
    groups: dict = field(default_factory=dict)
    class_counts: list = field(default_factory=lambda: [0] * len(CLASS_NAMES))
    encoded_bytes: int = 0
    pages: PageStore = field(default_factory=PageStore)

    @property
    def is_complete(self):
        """False: some pages are the parent's, and the parent is not here."""
        return self.class_counts[CLASS_PARENT] == 0 or self.pages.parent is not None

    @property
    def page_count(self):
        return sum(region.page_count for region in self.regions)

    def write(self, file):
        """All regions' bytes in table order, zeros as holes."""
        for region in self.regions:
            self.pages.write(file, region.first_page, region.page_count)
        file.truncate(self.page_count * PAGE_BYTES)


@dataclass
class Checkpoint:
    minor: int
    uuid: bytes
    parent: bytes
    parent_root: bytes
    epoch: int
    created: int
    contexts: dict = field(default_factory=dict)
    memory: Memory | None = None
    root: bytes = b''
    frame_count: int = 0
    stream_bytes: int = 0
    has_index: bool = False
    unknown_frame_count: int = 0

    @property
    def has_parent(self):
        return any(self.parent)

    @property
    def tag_count(self):
        return sum(len(context.tags) for context in self.contexts.values())

    def close(self):
        if self.memory is not None:
            self.memory.pages.close()
