"""PageStore: the content of guest pages by page number, sized by what the stream carries.

Pages that were never put are those of the `parent` store, or zero without one. Stored pages lie in
a spool file, fills are just their number, equal pages share one place: no stream makes this larger
than a small multiple of itself.
Pages are put in ascending order.
"""

from bisect import bisect_left
from hashlib import sha256
from tempfile import SpooledTemporaryFile

PAGE_BYTES = 4096
_SPOOL_MEMORY_BYTES = 64 << 20
_ZEROS = bytes(1 << 20)


class PageStore:
    def __init__(self):
        self.parent = None
        # Page number to content: n >= 0 is the n-th page of the spool, below 0 a fill of -1 - n,
        # None is zero: it hides the parent's page.
        self._contents = {}
        self._spool = SpooledTemporaryFile(max_size=_SPOOL_MEMORY_BYTES)
        self._spool_pages = 0

    def close(self):
        self._spool.close()

    def __contains__(self, page):
        """True for pages that were put here; the parent's are not looked at."""
        return page in self._contents

    def put_zero(self, page):
        self._contents[page] = None

    def put_stored(self, page, data):
        self._spool.write(data)
        self._contents[page] = self._spool_pages
        self._spool_pages += 1

    def put_fill(self, page, word):
        self._contents[page] = -1 - word

    def put_same(self, page, source):
        if source in self._contents:
            self._contents[page] = self._contents[source]

    def _content(self, page):
        place = self._contents[page]
        if place < 0:
            return (-1 - place).to_bytes(8, 'little') * (PAGE_BYTES // 8)
        self._spool.seek(place * PAGE_BYTES)
        return self._spool.read(PAGE_BYTES)

    def runs(self, first, count):
        """The pages from `first` on, as (zero bytes, content of the page behind them or b'')."""
        holders = self._holders(first, first + count)
        next_page = first
        for page in sorted(holders):
            if holders[page]._contents[page] is None:
                continue
            yield (page - next_page) * PAGE_BYTES, holders[page]._content(page)
            next_page = page + 1
        if next_page < first + count:
            yield (first + count - next_page) * PAGE_BYTES, b''

    def _holders(self, first, end):
        """The newest store that has a page, for each page that any of them has."""
        holders = {}
        store = self
        while store is not None:
            pages = list(store._contents)
            for page in pages[bisect_left(pages, first):bisect_left(pages, end)]:
                holders.setdefault(page, store)
            store = store.parent
        return holders

    def digest(self, first, count):
        """SHA-256 of the pages' bytes, in hex."""
        digest = sha256()
        for zeros, content in self.runs(first, count):
            while zeros > 0:
                part = min(zeros, len(_ZEROS))
                digest.update(_ZEROS[:part])
                zeros -= part
            digest.update(content)
        return digest.hexdigest()

    def write(self, file, first, count):
        """Writes the pages at the file's position; zeros become holes. The caller sets the size."""
        for zeros, content in self.runs(first, count):
            file.seek(zeros, 1)
            file.write(content)
