"""Chains on the command line: which are sound, and what is said of others (format section 13)."""

import json
from hashlib import sha256
from unittest import TestCase

from cases_command import Command
from encoder import PAGE, StreamWriter
from sample import INCREMENT_PAGES, SMALL_PAGES, small, write_increment, write_small

_SOUND, _USAGE, _DAMAGED = 0, 2, 3
_UUIDS = [bytes(15) + bytes([number]) for number in range(1, 5)]
_REGIONS = ((0, 36), (36, 16))


def _root(stream):
    """The root digest of a stream with index, from its END frame."""
    end = int.from_bytes(stream[-56:-48], 'little')
    return stream[end + 56:end + 88]


def _child_of(parent, uuid, epoch, write=write_increment):
    writer = StreamWriter(uuid=uuid, parent=parent[16:32], parent_root=_root(parent), epoch=epoch)
    write(writer)
    return writer.finish()


def _write_last(writer):
    """A third member, in which one page becomes zero."""
    writer.open('memory', 1)
    writer.regions((0, 36 * PAGE), (1 << 32, 16 * PAGE))
    writer.page_block(0, *[('parent',)] * 3, ('zero',), *[('parent',)] * 12)
    writer.parent_run(16, 20)
    writer.parent_run(36, 16)
    writer.close()


def _replacing(uuid, root):
    """A whole checkpoint with the memory of the small sample that stands in another one's place."""
    writer = StreamWriter(uuid=_UUIDS[3])
    writer.open('header')
    writer.tag('replaces.uuid', 1, uuid.encode())
    writer.tag('replaces.root', 1, root.hex().encode())
    writer.close()
    write_small(writer)
    return writer.finish()


def _memory(pages):
    return b''.join(pages.get(page, bytes(PAGE)) for page in range(52))


class ChainTest(Command, TestCase):
    def setUp(self):
        super().setUp()
        self.base = small(uuid=_UUIDS[0])
        # The increment's own pages are those of its sample, the others its parent's.
        self.child = _child_of(self.base, _UUIDS[1], 7)
        self.last = _child_of(self.child, _UUIDS[2], 8, _write_last)
        own = set(range(1, 6)) | set(range(32, 38))
        kept = {page: data for page, data in SMALL_PAGES.items() if page not in own}
        self.child_pages = kept | {page: INCREMENT_PAGES[page] for page in own & {*INCREMENT_PAGES}}

    def verify_chain(self, stream, *parents, arguments=()):
        """Runs verify.py on streams; the parents get files of their own."""
        given = []
        for number, parent in enumerate(parents):
            path = self.folder / f'parent{number}'
            path.write_bytes(parent)
            given += ['--parent', path]
        return self.verify(stream, *given, *arguments)

    def assert_damaged(self, message, stream, *parents):
        code, output, errors = self.verify_chain(stream, *parents)
        self.assertEqual((code, output), (_DAMAGED, b''))
        self.assertIn(message, errors)
        self.assertEqual(errors.count('\n'), 1)

    def test_memory_is_that_of_the_chain(self):
        out = self.folder / 'memory'
        last_pages = {**self.child_pages}
        del last_pages[3]
        for stream, parents, pages in ((self.child, [self.base], self.child_pages),
                                       (self.last, [self.child, self.base], last_pages),
                                       (self.last, [self.base, self.child], last_pages)):
            code, output, errors = self.verify_chain(stream, *parents,
                                                     arguments=['--json', '--memory', out])
            self.assertEqual((code, errors), (_SOUND, ''))
            memory = _memory(pages)
            self.assertEqual(out.read_bytes(), memory)
            regions = json.loads(output)['memory']['regions']
            self.assertEqual([region['sha256'] for region in regions], [
                sha256(memory[first * PAGE:(first + count) * PAGE]).hexdigest()
                for first, count in _REGIONS])

    def test_an_increment_alone_is_sound_and_its_memory_is_not_known(self):
        code, output, errors = self.verify(self.child, '--json')
        self.assertEqual((code, errors), (_SOUND, ''))
        summary = json.loads(output)
        self.assertEqual(summary['parent'],
                         {'uuid': '00000000-0000-0000-0000-000000000001',
                          'root': _root(self.base).hex()})
        self.assertEqual(summary['memory']['pages'], {'total': 52, 'zero': 5, 'fill': 1,
                                                      'stored': 1, 'same': 4, 'parent': 41})
        self.assertEqual([region['sha256'] for region in summary['memory']['regions']],
                         [None, None])
        self.assertIn(b'needs the parent', self.verify(self.child)[1])
        out = self.folder / 'memory'
        self.assertEqual(self.verify(self.child, '--memory', out)[0], _USAGE)
        self.assertFalse(out.exists())

    def test_a_parent_is_known_by_uuid_and_root(self):
        other = StreamWriter(uuid=_UUIDS[0], created=5)
        write_small(other)
        self.assert_damaged('no parent has UUID 00000000-0000-0000-0000-000000000001',
                            self.child, other.finish())
        self.assert_damaged('no parent has UUID', self.child, small(uuid=_UUIDS[3]))

    def test_every_member_is_wanted_and_no_other(self):
        self.assert_damaged('no parent has UUID 00000000-0000-0000-0000-000000000001',
                            self.last, self.child)
        self.assert_damaged('no parent has UUID 00000000-0000-0000-0000-000000000002',
                            self.last, self.base)
        self.assert_damaged('00000000-0000-0000-0000-000000000003 is not of the chain',
                            self.child, self.base, self.last)
        self.assert_damaged('00000000-0000-0000-0000-000000000001 is not of the chain',
                            self.child, self.base, self.base)
        self.assert_damaged('is not of the chain', self.base, self.child)

    def test_a_parent_is_older_and_has_the_same_regions(self):
        young = _child_of(self.base, _UUIDS[1], 8)
        self.assert_damaged('epoch 8 and a parent of epoch 8 at offset 48 (frame -)',
                            _child_of(young, _UUIDS[2], 8), young, self.base)
        self.assert_damaged('a parent with another region table at offset 32 (frame -)',
                            _child_of(self.base, _UUIDS[1], 1, self.write_smaller), self.base)
        without = StreamWriter(uuid=_UUIDS[0]).finish()
        self.assert_damaged('a parent with another region table',
                            _child_of(without, _UUIDS[1], 1), without)

    def write_smaller(self, writer):
        writer.open('memory', 1)
        writer.regions((0, 36 * PAGE))
        writer.parent_run(0, 36)
        writer.close()

    def test_a_checkpoint_may_stand_in_the_place_of_a_parent(self):
        uuid = '00000000-0000-0000-0000-000000000001'
        out = self.folder / 'memory'
        code, _, errors = self.verify_chain(self.child, _replacing(uuid, _root(self.base)),
                                            arguments=['--memory', out])
        self.assertEqual((code, errors), (_SOUND, ''))
        self.assertEqual(out.read_bytes(), _memory(self.child_pages))
        self.assert_damaged('no parent has UUID', self.child, _replacing(uuid, bytes(32)))
        self.assert_damaged('no parent has UUID', self.child,
                            _replacing(uuid[:-1] + '2', _root(self.base)))

    def test_damage_of_a_parent_is_told_with_its_name(self):
        damaged = bytearray(self.base)
        damaged[-1] ^= 1
        self.assert_damaged(f"damaged: parent {self.folder / 'parent0'}: footer: digest mismatch",
                            self.child, damaged)

    def test_a_parent_that_cannot_be_opened_is_wrong_usage(self):
        code, output, errors = self.verify(self.child, '--parent', self.folder / 'nothing')
        self.assertEqual((code, output), (_USAGE, b''))
        self.assertIn('nothing', errors)
