"""The verifier against its own encoder: what it must accept, and everything it must refuse.

Run with `python3 test/verifier/test_verifier.py`, or by unittest discovery. Standard library only.
"""

import io
import sys
import unittest
from contextlib import ExitStack
from pathlib import Path
from random import Random

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).parent))

import cases_chain  # noqa: E402
import cases_command  # noqa: E402
import cases_context  # noqa: E402
import cases_directory  # noqa: E402
import cases_increment  # noqa: E402
import cases_index  # noqa: E402
import cases_lz4  # noqa: E402
import cases_memory  # noqa: E402
import cases_stream  # noqa: E402
import cases_xxh3  # noqa: E402
import index  # noqa: E402
import memory  # noqa: E402
import sample  # noqa: E402
import stream  # noqa: E402
from damage import Damage  # noqa: E402
from encoder import END, INDEX, PAGE, PARENT_ROOT, PARENT_UUID, StreamWriter  # noqa: E402
from page_store import PageStore  # noqa: E402
from rule import lowered  # noqa: E402


def read(data, on_frame=None):
    checkpoint = stream.read_checkpoint(io.BytesIO(data), on_frame)
    checkpoint.close()
    return checkpoint


def frames_of(data):
    """(start, end) of every frame of a sound stream."""
    spans = []
    read(data, lambda frame: spans.append((frame.offset, frame.end)))
    return spans


class RuleTest(unittest.TestCase):
    """One generated test per case: see the docstrings of the cases for the rules."""

    def check(self, case):
        with ExitStack() as stack:
            for change in lowered(case.limits):
                stack.enter_context(change)
            data = bytes(case.build())
            if case.message is None:
                read(data)
                return
            with self.assertRaises(Damage) as caught:
                read(data)
            self.assertIn(case.message, str(caught.exception), case.rule)

    def test_the_limits_are_those_of_the_document(self):
        self.assertEqual(
            (stream.CONTEXT_COUNT_MAX, stream.TAG_COUNT_MAX, stream.VALUE_BYTES_MAX,
             stream.PIECE_BYTES_MAX, index.PIECE_BYTES_MAX, index.DOCUMENT_BYTES_MAX,
             memory.REGION_COUNT_MAX, memory.ADDRESS_MAX, memory.MEMORY_BYTES_MAX,
             memory.GROUP_PAGES),
            (65_536, 1_048_576, 268_435_456, 1_048_576, 1_048_576, 402_653_184, 256, 2**52,
             2**44, 131_072))


def _add_rule_tests():
    for part in (cases_stream, cases_context, cases_memory, cases_increment, cases_index):
        for case in part.CASES:
            verb = 'accepts' if case.message is None else 'refuses'
            name = f"test_{verb}_{part.__name__.removeprefix('cases_')}_{case.name}"
            if hasattr(RuleTest, name):
                raise ValueError(f'two cases of the name {name}')
            test = (lambda case: lambda self: self.check(case))(case)
            test.__doc__ = case.rule
            setattr(RuleTest, name, test)


_add_rule_tests()


class SoundTest(unittest.TestCase):
    def test_values_of_every_type_come_back(self):
        contexts = read(sample.large()).contexts
        self.assertEqual(list(contexts), ['values', 'empty', 'memory', 'last'])
        tags = contexts['values'].tags
        self.assertEqual(len(tags), len(sample.VALUES) + 2)
        for code, name, data, value in sample.VALUES:
            tag = tags[f'tag.{name}']
            self.assertEqual((tag.type, tag.type_name, tag.data, tag.value),
                             (code, name, data, value))
        self.assertEqual(tags['exact'].data, bytes(1 << 20))
        self.assertEqual(tags['long'].data, b'0123456789abcdef' * (1 << 17) + b'tail')

    def test_pages_of_every_class_come_back(self):
        checkpoint = stream.read_checkpoint(io.BytesIO(sample.large()))
        pages = sample.large_pages()
        for region in checkpoint.memory.regions:
            next_page = region.first_page
            for zeros, content in checkpoint.memory.pages.runs(next_page, region.page_count):
                next_page += zeros // PAGE
                if content:
                    self.assertEqual(content, pages.pop(next_page), next_page)
                    next_page += 1
            self.assertEqual(next_page, region.end_page)
        self.assertEqual(pages, {})
        self.assertEqual(checkpoint.memory.class_counts, [131_073, 16, 17, 3, 0])
        checkpoint.close()

    def test_header_fields_and_counts_come_back(self):
        checkpoint = read(sample.large())
        self.assertEqual((checkpoint.created, checkpoint.epoch, checkpoint.minor),
                         (1_700_000_000_123, 0, 3))
        self.assertEqual((checkpoint.tag_count, checkpoint.unknown_frame_count), (26, 1))
        self.assertTrue(checkpoint.has_index)
        self.assertFalse(read(sample.small(index=False)).has_index)
        checkpoint = read(sample.increment())
        self.assertEqual((checkpoint.parent, checkpoint.parent_root, checkpoint.epoch,
                          checkpoint.minor), (PARENT_UUID, PARENT_ROOT, 7, 1))
        self.assertEqual(checkpoint.memory.class_counts, [5, 1, 1, 4, 41])

    def test_equal_content_has_an_equal_root_and_other_content_another(self):
        roots = {read(sample.small(**header)).root
                 for header in ({}, {}, {'index': False}, {'created': 1}, {'minor': 1})}
        self.assertEqual(len(roots), 3)

    def test_page_store_gives_back_what_was_put_beyond_its_memory(self):
        pages = PageStore()
        pages.put_fill(3, 2**64 - 1)
        pages.put_same(4, 2)
        pages.put_same(5, 3)
        pages.put_stored(6, b'\5' * PAGE)
        pages._spool.rollover()
        self.assertEqual(list(pages.runs(0, 6)),
                         [(3 * PAGE, b'\xff' * PAGE), (PAGE, b'\xff' * PAGE)])
        self.assertEqual(list(pages.runs(6, 2)), [(0, b'\5' * PAGE), (PAGE, b'')])
        pages.close()


class DamageTest(unittest.TestCase):
    """Damage without repaired digests, on the small sample."""

    def setUp(self):
        self.data = sample.small()
        self.spans = frames_of(self.data)

    def assert_refused(self, data, label):
        try:
            read(data)
        except Damage as damage:
            self.assertLessEqual(damage.offset, len(data))
            return damage
        return self.fail(f'accepted: {label}')

    def test_every_single_bit_flip_is_refused(self):
        data = bytearray(self.data)
        for at in range(len(data)):
            for bit in range(8):
                data[at] ^= 1 << bit
                self.assert_refused(data, f'bit {bit} of byte {at}')
                data[at] ^= 1 << bit

    def test_a_stream_cut_at_any_byte_is_refused_as_truncated_there(self):
        for data in (self.data, sample.small(index=False)):
            for size in range(len(data)):
                damage = self.assert_refused(data[:size], f'{size} bytes')
                self.assertEqual((damage.what[:9], damage.offset), ('truncated', size))

    def test_trailing_bytes_are_refused(self):
        for data in (self.data, sample.small(index=False)):
            for more in (b'\0', bytes(8), data, b'\n'):
                damage = self.assert_refused(data + more, f'{len(more)} bytes more')
                self.assertEqual((damage.what, damage.offset), ('trailing data', len(data)))

    def test_swapped_frames_are_refused(self):
        for at, (start, middle) in enumerate(self.spans):
            for later, end in self.spans[at + 1:]:
                data = self.data
                swapped = (data[:start] + data[later:end] + data[middle:later]
                           + data[start:middle] + data[end:])
                damage = self.assert_refused(swapped, f'frames at {start} and {later}')
                self.assertEqual(damage.frame, at)

    def test_repeated_and_missing_frames_are_refused(self):
        for at, (start, end) in enumerate(self.spans):
            again = self.data[:end] + self.data[start:]
            self.assert_refused(again, f'frame {at} twice')
            self.assert_refused(self.data[:start] + self.data[end:], f'no frame {at}')
            over = self.data[:end] + self.data[start:end] + self.data[end + end - start:]
            self.assert_refused(over, f'frame {at} over the next')

    def test_frames_of_a_similar_checkpoint_are_refused(self):
        parent = {'parent': PARENT_UUID, 'parent_root': bytes(31) + b'\1'}
        data = sample.increment(epoch=4, **parent)
        others = [sample.increment(epoch=5, **parent),
                  sample.increment(epoch=4, uuid=bytes(15) + b'\1', **parent)]
        for other in others:
            for at, (start, end) in enumerate(frames_of(data)):
                mixed = data[:start] + other[start:end] + data[end:]
                self.assertEqual(self.assert_refused(mixed, f'frame {at}').frame, at)


class ResealedDamageTest(unittest.TestCase):
    def test_damage_with_repaired_digests_is_accepted_or_refused_and_never_crashes(self):
        self.check_resealed(sample.small(), {})

    def test_damage_of_an_increment_is_accepted_or_refused_and_never_crashes(self):
        self.check_resealed(sample.increment(), sample.INCREMENT_HEADER)

    def check_resealed(self, data, header):
        parts = []
        read(data, parts.append)
        # Fields as a broken writer might give them: small, at borders, and huge.
        fields = [0, 1, 2, 4, 8, 15, 16, 17, 36, 52, 255, 4095, 4096, 2**32 - 1, 2**52, 2**63,
                  2**64 - 1]
        random = Random(6)
        accepted = 0
        for _ in range(1500):
            try:
                read(self.reseal(parts, StreamWriter(**header), random, fields))
                accepted += 1
            except Damage:
                pass
        # Changed data bytes of a value are another checkpoint, so some must pass.
        self.assertTrue(15 < accepted < 750, accepted)

    def reseal(self, parts, writer, random, fields):
        victim = random.randrange(len(parts))
        for at, part in enumerate(parts):
            arg0, arg1, payload = part.arg0, part.arg1, bytearray(part.payload)
            if part.type == END:
                payload[:32] = writer.root.digest()
            if at == victim:
                choice = random.randrange(4 if payload else 2)
                if choice == 0:
                    arg0 = random.choice(fields)
                elif choice == 1:
                    arg1 = random.choice(fields)
                elif choice == 2:
                    payload[random.randrange(len(payload))] = random.randrange(256)
                else:
                    word = random.choice(fields).to_bytes(8, 'little')
                    start = random.randrange(0, len(payload), 8)
                    payload[start:start + 8] = word[:len(payload) - start]
            if part.type == END:
                writer.end_offset = len(writer.out)
            if part.type == INDEX:
                first = len(writer.out)
            writer.frame(part.type, arg0, arg1, bytes(payload))
        return writer.out + writer.footer(first)


def load_tests(loader, tests, pattern):
    for part in (cases_xxh3, cases_lz4, cases_directory, cases_command, cases_chain):
        tests.addTests(loader.loadTestsFromModule(part))
    return tests


if __name__ == '__main__':
    unittest.main()
