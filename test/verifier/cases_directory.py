"""Checkpoints of dir: stores: section 12 of the format and docs/stores.md."""

import io
import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import TestCase
from unittest.mock import patch
from uuid import UUID

import manifest as manifests
import sample
from checkpoint import KIND_MEMORY
from damage import Damage
from directory import read_directory
from encoder import UUID as CHECKPOINT
from encoder import StreamWriter
from stream import read_checkpoint

_NAME = str(UUID(bytes=CHECKPOINT))


def segments_of(stream, joined=None):
    """(name, kind, start, end) of each segment; `joined`: one segment that also takes the next."""
    checkpoint = read_checkpoint(io.BytesIO(stream))
    checkpoint.close()
    cuts = [('start', 'start', 0)]
    cuts += [(context.name, 'memory' if context.kind == KIND_MEMORY else 'values', context.offset)
             for context in checkpoint.contexts.values()]
    end = max((context.end for context in checkpoint.contexts.values()), default=128)
    cuts.append(('end', 'end', end))
    if joined is not None:
        del cuts[joined + 1]
    ends = [start for _, _, start in cuts[1:]] + [len(stream)]
    return [(*cut, end) for cut, end in zip(cuts, ends)]


def file_name(number, name, kind):
    safe = ''.join(letter if letter.isascii() and (letter.isalnum() or letter in '._-') else '_'
                   for letter in name)
    return f'{number:03}-{safe}' + ('.pages' if kind == 'memory' else '')


def seal(manifest):
    """The bytes of a manifest with its own digest made right."""
    content = {key: value for key, value in manifest.items() if key != 'digest'}
    canonical = json.dumps(content, sort_keys=True, separators=(',', ':'), ensure_ascii=False)
    if 'digest' in manifest:
        manifest['digest'] = sha256(canonical.encode()).hexdigest()
    return (json.dumps(manifest, indent=2, ensure_ascii=False) + '\n').encode()


class DirectoryTest(TestCase):
    def setUp(self):
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.generation = self.folder / _NAME
        self.generation.mkdir()
        self.stream = sample.small()
        self.manifest = self.write(self.stream)

    def write(self, stream, cuts=None):
        """Writes the directory form of a stream. Gives the manifest."""
        frames = []
        checkpoint = read_checkpoint(io.BytesIO(stream), frames.append)
        checkpoint.close()
        segments = []
        for number, (name, kind, start, end) in enumerate(cuts or segments_of(stream)):
            digests = [frame.header_digest for frame in frames if start <= frame.offset < end]
            file = file_name(number, name, kind)
            (self.generation / file).write_bytes(stream[start:end])
            segments.append({'name': name, 'kind': kind, 'file': file, 'bytes': end - start,
                             'frames': len(digests),
                             'digest': sha256(b''.join(digests)).hexdigest()})
        parent = str(UUID(bytes=checkpoint.parent)) if any(checkpoint.parent) else None
        manifest = {'format': 'chkpt directory', 'version': 1, 'uuid': _NAME, 'parent': parent,
                    'epoch': str(checkpoint.epoch), 'root': checkpoint.root.hex(),
                    'bytes': len(stream), 'generation': _NAME, 'segments': segments, 'digest': ''}
        self.write_manifest(seal(manifest))
        return manifest

    def write_manifest(self, raw):
        (self.folder / 'MANIFEST.json').write_bytes(raw)

    def read(self):
        checkpoint = read_directory(self.folder)
        checkpoint.close()
        return checkpoint

    def assert_refused(self, message):
        with self.assertRaises(Damage) as caught:
            self.read()
        self.assertIn(message, str(caught.exception))
        return caught.exception

    def test_the_segments_are_the_stream(self):
        for stream in (self.stream, sample.large(), sample.small(index=False),
                       StreamWriter().finish()):
            self.write(stream)
            checkpoint = self.read()
            self.assertEqual(checkpoint.stream_bytes, len(stream))
            twin = read_checkpoint(io.BytesIO(stream))
            twin.close()
            self.assertEqual((checkpoint.root, list(checkpoint.contexts)),
                             (twin.root, list(twin.contexts)))

    def test_optional_frames_between_contexts_belong_to_the_segment_before_them(self):
        writer = StreamWriter()
        writer.frame(0x8000FFFF)
        for name in ('a', 'b'):
            writer.open(name)
            writer.close()
            writer.frame(0x8000FFFF, payload=b'later')
        self.write(writer.finish())
        self.assertEqual(self.read().unknown_frame_count, 3)

    def test_names_of_any_language_are_read(self):
        writer = StreamWriter()
        for name in ('ナメ☃', 'a"b\\c', '\x80é'):
            writer.open(name)
            writer.close()
        self.write(writer.finish())
        self.assertEqual(list(self.read().contexts), ['ナメ☃', 'a"b\\c', '\x80é'])

    def test_the_longest_file_name_and_the_longest_manifest_are_read(self):
        writer = StreamWriter()
        writer.open('n' * 96)
        writer.close()
        raw = seal(self.write(writer.finish()))
        with patch('manifest.MANIFEST_BYTES_MAX', len(raw)):
            self.read()
        with patch('manifest.MANIFEST_BYTES_MAX', len(raw) - 1):
            self.assert_refused('more than 64 MiB')

    def test_a_generation_may_have_a_number(self):
        self.manifest['generation'] = f'{_NAME}.12'
        self.write_manifest(seal(self.manifest))
        self.generation.rename(self.folder / f'{_NAME}.12')
        self.read()

    def test_every_single_bit_flip_of_the_manifest_is_refused(self):
        raw = bytearray(seal(self.manifest))
        for at in range(len(raw)):
            for bit in range(8):
                raw[at] ^= 1 << bit
                with self.assertRaises(Damage, msg=f'bit {bit} of byte {at}'):
                    manifests.parse_manifest(bytes(raw))
                raw[at] ^= 1 << bit
        manifests.parse_manifest(bytes(raw))

    def test_a_manifest_of_another_form_is_refused(self):
        raw = seal(self.manifest)
        for other, message in (
                (raw[:-1], 'form'), (raw + b'\n', 'form'), (raw.replace(b'  ', b' '), 'form'),
                (raw.replace(b'\n', b'\r\n'), 'form'),
                (raw.replace(b'bytes', b'\\u0062ytes'), 'form'),
                (b'', 'not JSON'), (raw[:-3], 'not JSON'), (b'\xff', 'not JSON'),
                (b'[' * 100_000, 'not JSON'), (b'[]', 'keys of the manifest'),
                (b'5', 'keys of the manifest'), (b'null', 'keys of the manifest'),
                (seal(self.manifest | {'segments': [5, 6]}), 'keys of the segment 0'),
                (raw.replace(b'"epoch"', b'"uuid"', 1), 'keys of the manifest'),
                (seal(self.manifest | {'more': 1}), 'keys of the manifest'),
                (seal(dict(sorted(self.manifest.items()))), 'keys of the manifest'),
                (b' ' * ((64 << 20) + 1), 'more than 64 MiB')):
            self.write_manifest(other)
            self.assert_refused(message)

    def test_a_value_that_the_document_does_not_allow_is_refused(self):
        for key, value in (
                ('format', 'chkpt'), ('version', 2), ('version', True), ('uuid', _NAME.upper()),
                ('uuid', None), ('parent', ''), ('epoch', 0), ('epoch', '00'), ('epoch', '-1'),
                ('root', 'ab'), ('bytes', -1), ('bytes', 2**53), ('bytes', 1.0),
                ('generation', '..'), ('generation', f'{_NAME}.1'), ('generation', f'{_NAME}.02'),
                ('generation', f'{_NAME}/x'), ('segments', {}), ('segments', [])):
            self.write_manifest(seal(self.manifest | {key: value}))
            self.assert_refused(f'{key} of the manifest is not legal')
        for key, value in (('name', 1), ('kind', 'pages'), ('file', None), ('bytes', '5'),
                           ('frames', -1), ('digest', 'AB' * 32)):
            self.refused_segment(1, key, value, f'{key} of the segment 1 is not legal')

    def test_a_value_that_is_not_true_is_refused(self):
        other = str(UUID(int=5))
        for key, value, message in (
                ('parent', other, 'parent of another'), ('epoch', '1', 'epoch of another'),
                ('root', 'ab' * 32, 'root of another'), ('bytes', 5, 'tells 5 bytes'),
                ('generation', other, 'not called after'), ('uuid', other, 'not called after'),
                ('generation', f'{_NAME}.2', 'is missing')):
            self.write_manifest(seal(self.manifest | {key: value}))
            self.assert_refused(message)
        for at, key, value, message in (
                (1, 'name', 'PIC', 'not what stands there'),
                (1, 'name', '\ud800', 'not Unicode'),
                (1, 'kind', 'end', 'not what stands there'),
                (4, 'kind', 'values', 'follows the last'),
                (0, 'name', 'begin', 'not what stands there'),
                (4, 'name', 'tail', 'follows the last'),
                (1, 'file', '001-none', 'is missing'),
                (1, 'file', '../001-pic', 'is called other'),
                (1, 'file', '002-pic', 'is called other'),
                (1, 'file', '0001-pic', 'is called other'),
                (1, 'file', '001-' + 'n' * 97, 'is called other'),
                (1, 'file', '001-p\n', 'is called other'),
                (3, 'file', '003-memory', 'not called .pages'),
                (1, 'frames', 1, 'tells 1 frames'),
                (2, 'digest', 'ab' * 32, 'another digest'),
                (1, 'bytes', 56, 'another length')):
            self.refused_segment(at, key, value, message)

    def refused_segment(self, at, key, value, message):
        segments = list(self.manifest['segments'])
        segments[at] = segments[at] | {key: value}
        manifest = self.manifest | {'segments': segments}
        try:
            raw = seal(manifest)
        except UnicodeEncodeError:
            raw = (json.dumps(manifest, indent=2) + '\n').encode()
        self.write_manifest(raw)
        self.assert_refused(message)

    def test_segments_cut_at_other_places_are_refused(self):
        cuts = segments_of(self.stream)
        self.write(self.stream, segments_of(self.stream, joined=1))
        self.assert_refused('4 segments for 3 contexts')
        name, kind, start, end = cuts[1]
        later = cuts[2]
        # The first tag of the second context lies in the segment of the first.
        moved = [cuts[0], (name, kind, start, later[2] + 64), (*later[:2], later[2] + 64, later[3]),
                 *cuts[3:]]
        self.write(self.stream, moved)
        self.assert_refused('not what stands there')
        inside = [cuts[0], (name, kind, start, end - 8), (*later[:2], end - 8, later[3]), *cuts[3:]]
        self.write(self.stream, inside)
        self.assert_refused('crosses the end of a segment')
        memory, tail = cuts[-2], cuts[-1]
        early = [*cuts[:-2], (*memory[:3], tail[2] - 56), ('end', 'end', tail[2] - 56, tail[3])]
        self.write(self.stream, early)
        self.assert_refused('follows the last context')

    def test_a_damaged_or_missing_segment_is_refused_at_its_offset(self):
        file = self.generation / '002-rtc'
        offset = segments_of(self.stream)[2][2]
        data = file.read_bytes()
        for other, message in ((data[:-1], 'another length'), (data + b'\0', 'another length'),
                               (b'', 'another length'), (data[:-1] + b'\1', 'digest mismatch')):
            file.write_bytes(other)
            self.assertGreaterEqual(self.assert_refused(message).offset, offset)
        file.unlink()
        self.assertEqual(self.assert_refused('002-rtc is missing').offset, offset)
        (self.generation / 'twin').write_bytes(data)
        file.symlink_to('twin')
        self.assert_refused('002-rtc')
        file.unlink()
        os.mkfifo(file)
        self.assert_refused('002-rtc')

    def test_links_in_place_of_manifest_or_generation_are_refused(self):
        self.generation.rename(self.folder / 'moved')
        self.generation.symlink_to('moved')
        self.assert_refused('the generation is not a folder')
        (self.folder / 'MANIFEST.json').rename(self.folder / 'twin')
        (self.folder / 'MANIFEST.json').symlink_to('twin')
        self.assert_refused('MANIFEST.json is not a regular file')

    def test_the_command_reads_a_directory(self):
        command = [sys.executable, Path(__file__).with_name('verify.py'), '--dir', self.folder]
        done = subprocess.run([*command, '--json'], capture_output=True, timeout=60)
        self.assertEqual((done.returncode, done.stderr), (0, b''))
        self.assertEqual(json.loads(done.stdout)['root'], self.manifest['root'])
        (self.generation / '001-pic').unlink()
        done = subprocess.run(command, capture_output=True, timeout=60)
        self.assertEqual((done.returncode, done.stderr),
                         (3, b'damaged: manifest: 001-pic is missing at offset 128 (frame -)\n'))
        (self.folder / 'MANIFEST.json').unlink()
        self.assertEqual(subprocess.run(command, capture_output=True, timeout=60).returncode, 2)
