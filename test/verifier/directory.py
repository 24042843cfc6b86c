"""Reads a checkpoint of a dir: store: MANIFEST.json and its segment files (docs/stores.md).

The segments one behind the other are the stream; it is read as one, without a copy. The manifest is
checked first by itself, then against the files, and at the end against what the stream turned out
to be. `Damage` about the manifest tells the offset of the segment in question, else 0.
"""

import os
import re
import stat
from hashlib import sha256
from uuid import UUID

from checkpoint import KIND_MEMORY
from damage import Damage
from manifest import MANIFEST_BYTES_MAX, manifest_damage, parse_manifest
from stream import read_checkpoint

MANIFEST_FILE = 'MANIFEST.json'
_OPEN_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FILE_NAME = re.compile(r'([0-9]{3,})-[A-Za-z0-9._-]+')
_FILE_NAME_CHARS_MAX = 100


def read_directory(path):
    """The checkpoint in the folder `path`. Raises Damage, or OSError when there is no manifest."""
    with _open(os.path.join(path, MANIFEST_FILE), 0) as file:
        manifest = parse_manifest(file.read(MANIFEST_BYTES_MAX + 1))
    folder = os.path.join(path, manifest['generation'])
    if not stat.S_ISDIR(_status(folder, 0).st_mode):
        raise manifest_damage('the generation is not a folder')
    segments = []
    offset = 0
    for number, fields in enumerate(manifest['segments']):
        segments.append(_Segment(number, folder, offset, fields))
        offset += fields['bytes']
    if offset != manifest['bytes']:
        raise manifest_damage(f"tells {manifest['bytes']} bytes, the segments have {offset}")
    with _SegmentFiles(segments) as files:
        checkpoint = read_checkpoint(files, _SegmentFrames(segments).note)
    try:
        _check_identity(manifest, checkpoint)
        _check_segments(segments, checkpoint)
    except Damage:
        checkpoint.close()
        raise
    return checkpoint


def _open(path, offset):
    """A regular file, never through a link, and without waiting for the other end of a pipe."""
    if not stat.S_ISREG(_status(path, offset).st_mode):
        raise manifest_damage(f'{os.path.basename(path)} is not a regular file', offset)
    return open(path, 'rb', opener=lambda name, _: os.open(name, _OPEN_FLAGS))


def _status(path, offset):
    try:
        return os.lstat(path)
    except FileNotFoundError:
        if os.path.basename(path) == MANIFEST_FILE:
            raise
        raise manifest_damage(f'{os.path.basename(path)} is missing', offset) from None


class _Segment:
    def __init__(self, number, folder, offset, fields):
        self.name = fields['name']
        self.kind = fields['kind']
        self.file = fields['file']
        self.offset = offset
        self.end = offset + fields['bytes']
        self.frame_count = 0
        self.digest = sha256()
        self._fields = fields
        self.path = os.path.join(folder, self.file)
        match = _FILE_NAME.fullmatch(self.file)
        if match is None or len(self.file) > _FILE_NAME_CHARS_MAX or match[1] != f'{number:03}':
            raise self.damage('is called other than the rules say')
        if self.kind == 'memory' and not self.file.endswith('.pages'):
            raise self.damage('is of memory and not called .pages')
        if _status(self.path, offset).st_size != fields['bytes']:
            raise self.damage('has another length')

    def damage(self, what):
        return manifest_damage(f'segment {self.file!r} {what}', self.offset)

    def check(self):
        """Once all frames were noted."""
        if self._fields['frames'] != self.frame_count:
            told = self._fields['frames']
            raise self.damage(f'tells {told} frames, there are {self.frame_count}')
        if self._fields['digest'] != self.digest.hexdigest():
            raise self.damage('has another digest')


class _SegmentFiles:
    """The segments as one file to read forward; one of them is open at a time."""

    def __init__(self, segments):
        self._segments = iter(segments)
        self._file = None
        # Bytes of the open segment that are still to come: a file that grows now stays as it was.
        self._rest = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._file is not None:
            self._file.close()

    def read(self, count):
        """Up to `count` bytes; no bytes at the end of the last segment only."""
        while self._rest == 0:
            segment = next(self._segments, None)
            if segment is None:
                return b''
            if self._file is not None:
                self._file.close()
            self._file = _open(segment.path, segment.offset)
            self._rest = segment.end - segment.offset
        data = self._file.read(min(count, self._rest))
        self._rest -= len(data)
        return data


class _SegmentFrames:
    """Counts each frame for the segment that holds it."""

    def __init__(self, segments):
        self._segments = iter(segments)
        self._segment = next(self._segments)

    def note(self, frame):
        while frame.offset >= self._segment.end:
            self._segment = next(self._segments)
        if frame.end > self._segment.end:
            raise frame.damage('crosses the end of a segment')
        self._segment.frame_count += 1
        self._segment.digest.update(frame.header_digest)


def _check_identity(manifest, checkpoint):
    parent = str(UUID(bytes=checkpoint.parent)) if any(checkpoint.parent) else None
    for key, value in (('uuid', str(UUID(bytes=checkpoint.uuid))), ('parent', parent),
                       ('epoch', str(checkpoint.epoch)), ('root', checkpoint.root.hex())):
        if manifest[key] != value:
            raise manifest_damage(f'{key} of another checkpoint')


def _check_segments(segments, checkpoint):
    """One segment for the start, each context, and the end; each starts where its context does."""
    contexts = list(checkpoint.contexts.values())
    if len(segments) != len(contexts) + 2:
        raise manifest_damage(f'{len(segments)} segments for {len(contexts)} contexts')
    wanted = [('start', 'start', 0)]
    for context in contexts:
        kind = 'memory' if context.kind == KIND_MEMORY else 'values'
        wanted.append((context.name, kind, context.offset))
    for segment, (name, kind, offset) in zip(segments, wanted):
        if (segment.name, segment.kind, segment.offset) != (name, kind, offset):
            raise segment.damage('is not what stands there in the stream')
    last = segments[-1]
    if (last.name, last.kind) != ('end', 'end') or contexts and last.offset < contexts[-1].end:
        raise last.damage('is not what follows the last context')
    for segment in segments:
        segment.check()
