"""The command line: what verify.py prints and writes, and its exit codes."""

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import TestCase

import sample
from encoder import PAGE, StreamWriter

_VERIFY = Path(__file__).with_name('verify.py')
_SOUND, _USAGE, _DAMAGED = 0, 2, 3


class Command:
    """What tests of the command line share."""

    def setUp(self):
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def verify(self, stream, *arguments):
        """Runs verify.py on the bytes; gives exit code, standard output, standard error."""
        path = self.folder / 'stream'
        path.write_bytes(stream)
        return self.run_verify(path, *arguments)

    def run_verify(self, *arguments):
        command = [sys.executable, _VERIFY, *arguments]
        done = subprocess.run(command, capture_output=True, timeout=60)
        return done.returncode, done.stdout, done.stderr.decode()


class CommandTest(Command, TestCase):
    def test_json_has_all_of_the_checkpoint(self):
        code, output, errors = self.verify(sample.large(), '--json')
        self.assertEqual((code, errors), (_SOUND, ''))
        summary = json.loads(output)
        values, empty, memory, last = summary.pop('contexts')
        regions = summary['memory'].pop('regions')
        self.assertEqual(summary.pop('root'), _root_in(sample.large()))
        self.assertEqual(summary, {
            'version': '1.3',
            'uuid': 'a0a1a2a3-a4a5-a6a7-a8a9-aaabacadaeaf',
            'parent': None,
            'epoch': 0,
            'createdMs': 1_700_000_000_123,
            'bytes': len(sample.large()),
            'frames': 50,
            'unknownFrames': 1,
            'index': True,
            'memory': {
                'pages': {'total': 131_109, 'zero': 131_073, 'fill': 16, 'stored': 17, 'same': 3,
                          'parent': 0},
                'encodedBytes': summary['memory']['encodedBytes'],
                'blockIndexes': 2,
            },
        })
        self.assertEqual(empty, {'name': 'empty', 'kind': 'values', 'tags': []})
        self.assertEqual(memory, {'name': 'memory', 'kind': 'memory'})
        self.assertEqual(last['tags'], [])
        self.assertEqual(values['tags'][:-2], [
            {'tag': f'tag.{name}', 'type': name, 'bytes': len(data), 'value': value}
            for _, name, data, value in sample.VALUES
        ])
        self.assertEqual([region['base'] for region in regions],
                         [0, (8192 * 16 + 18) * PAGE, 1 << 40])
        self.assertEqual(regions[2]['sha256'], sha256(bytes(16 * PAGE)).hexdigest())
        self.assertEqual(regions[1]['sha256'], sha256(
            sample.BYTE_PAGE + bytes(PAGE) + sample.BYTE_PAGE).hexdigest())

    def test_text_names_contexts_tags_values_and_regions(self):
        code, output, errors = self.verify(sample.small())
        self.assertEqual((code, errors), (_SOUND, ''))
        text = output.decode()
        for line in ('uuid     a0a1a2a3-a4a5-a6a7-a8a9-aaabacadaeaf', 'parent   none', 'epoch    0',
                     f'root     {_root_in(sample.small())}', 'created  not told',
                     'context  pic (values)', '  irr: u32 = 7', '  name: string = "8259"',
                     '  masks: u16[] = [1, 2, 3]', 'context  memory (memory)',
                     '  pages: 52 total, 45 zero, 4 fill, 2 stored, 1 same, 0 parent;'):
            self.assertIn(line, text)
        self.assertIn(sha256(bytes(16 * PAGE)).hexdigest(), text)

    def test_text_survives_any_creation_time_and_long_values(self):
        for created in (1, 1_700_000_000_123, 2**53 - 1):
            writer = StreamWriter(created=created)
            writer.open('values')
            writer.tag('long', 0, bytes(1000))
            writer.close()
            code, output, errors = self.verify(writer.finish())
            self.assertEqual((code, errors), (_SOUND, ''))
            self.assertIn('… (1000 bytes)', output.decode())

    def test_memory_writes_every_page_of_every_region(self):
        out = self.folder / 'memory'
        code, _, errors = self.verify(sample.large(), '--memory', out)
        self.assertEqual((code, errors), (_SOUND, ''))
        total = 131_109
        self.assertEqual(out.stat().st_size, total * PAGE)
        # Sparse: 36 pages of 512 MiB have content.
        self.assertLess(out.stat().st_blocks * 512, 1 << 20)
        pages = sample.large_pages()
        with out.open('rb') as file:
            for page in range(total):
                self.assertEqual(file.read(PAGE), pages.get(page, bytes(PAGE)), page)

    def test_cat_writes_the_data_of_a_value_and_nothing_else(self):
        self.assertEqual(self.verify(sample.small(), '--cat', 'rtc', 'ram'),
                         (_SOUND, bytes(range(64)), ''))

    def test_damage_gives_one_line_with_frame_and_offset_and_writes_nothing(self):
        out = self.folder / 'memory'
        stream = bytearray(sample.small())
        # The first payload byte of frame 0, the name of the first context.
        stream[128 + 56] ^= 1
        self.assertEqual(
            self.verify(stream, '--json', '--memory', out),
            (_DAMAGED, b'', 'damaged: payload digest mismatch at offset 128 (frame 0)\n'))
        self.assertFalse(out.exists())
        self.assertEqual(
            self.verify(b''),
            (_DAMAGED, b'', 'damaged: truncated: the stream ends inside the stream header '
                            'at offset 0 (frame -)\n'))

    def test_wrong_usage_exits_with_2(self):
        stream = sample.small()
        no_memory = StreamWriter().finish()
        for data, arguments in ((stream, ['--nothing']), (stream, ['--cat', 'rtc']),
                                (stream, ['--cat', 'rtc', 'rom']),
                                (stream, ['--cat', 'cpu', 'ram']),
                                (stream, ['--cat', 'rtc', 'ram', '--json']),
                                (stream, ['--memory', self.folder / 'no' / 'where']),
                                (no_memory, ['--memory', self.folder / 'memory'])):
            code, output, errors = self.verify(data, *arguments)
            self.assertEqual((code, output), (_USAGE, b''), arguments)
            self.assertNotEqual(errors, '')
        self.assertEqual(self.run_verify()[0], _USAGE)
        self.assertEqual(self.run_verify(self.folder / 'nothing')[0], _USAGE)


def _root_in(stream):
    """The root digest by the words of the format, from the END frame of a sound sample."""
    end = int.from_bytes(stream[-56:-48], 'little')
    return stream[end + 56:end + 88].hex()
