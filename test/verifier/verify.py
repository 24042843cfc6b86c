#!/usr/bin/env python3
"""Independent verifier of chkpt checkpoints: written from docs/format.md, without chkpt's code.

  python3 verify.py STREAM [--dir] [--parent PARENT]… [--json | --cat CONTEXT TAG] [--memory OUT]

Reads the whole stream, checks every rule, then prints a summary (or with --cat the raw data of one
value) to standard output. --memory writes the bytes of all regions, one behind the other, to a
sparse file. With --dir STREAM is the directory of a checkpoint in a dir: store.

With --parent the chain of STREAM is read and checked, and memory is that of the chain: give every
ancestor, in any order, each a stream or a directory. Without it an incremental checkpoint is
checked by itself; regions with pages of the parent then have no digest, and --memory is refused.

Exit code 0: sound. 3: damaged, or of a version this reader does not know; one line on standard
error: `damaged: <what> at offset N (frame M)`, where M is - outside of any frame; damage inside of
an ancestor starts `damaged: parent PARENT: `. 2: wrong usage, or a file that cannot be opened or
written. Nothing is printed or written unless all of it is sound.
"""

import argparse
import json
import os
import sys
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from uuid import UUID

sys.dont_write_bytecode = True

from chain import join_chain  # noqa: E402
from checkpoint import CLASS_NAMES, KIND_MEMORY  # noqa: E402
from damage import Damage  # noqa: E402
from directory import read_directory  # noqa: E402
from stream import read_checkpoint  # noqa: E402

EXIT_SOUND = 0
EXIT_USAGE = 2
EXIT_DAMAGED = 3

_TEXT_CHARS_MAX = 72


def summarize(checkpoint):
    """The summary as plain data, in the form --json prints."""
    parent = None
    if checkpoint.has_parent:
        parent = {'uuid': str(UUID(bytes=checkpoint.parent)), 'root': checkpoint.parent_root.hex()}
    return {
        'version': f'1.{checkpoint.minor}',
        'uuid': str(UUID(bytes=checkpoint.uuid)),
        'parent': parent,
        'epoch': checkpoint.epoch,
        'createdMs': checkpoint.created,
        'root': checkpoint.root.hex(),
        'bytes': checkpoint.stream_bytes,
        'frames': checkpoint.frame_count,
        'unknownFrames': checkpoint.unknown_frame_count,
        'index': checkpoint.has_index,
        'contexts': [_summarize_context(c) for c in checkpoint.contexts.values()],
        'memory': _summarize_memory(checkpoint.memory),
    }


def _summarize_context(context):
    if context.kind == KIND_MEMORY:
        return {'name': context.name, 'kind': 'memory'}
    tags = [
        {'tag': t.name, 'type': t.type_name, 'bytes': t.byte_count, 'value': t.value}
        for t in context.tags.values()
    ]
    return {'name': context.name, 'kind': 'values', 'tags': tags}


def _summarize_memory(memory):
    if memory is None:
        return None
    return {
        'regions': [
            {
                'base': region.base,
                'bytes': region.byte_count,
                'sha256': _digest(memory, region),
            }
            for region in memory.regions
        ],
        'pages': {'total': memory.page_count, **dict(zip(CLASS_NAMES, memory.class_counts))},
        'encodedBytes': memory.encoded_bytes,
        'blockIndexes': len(memory.groups),
    }


def _digest(memory, region):
    if not memory.is_complete:
        return None
    return memory.pages.digest(region.first_page, region.page_count)


def _text(summary):
    """The summary as lines for people; long values are cut."""
    parent = summary['parent']
    yield f"uuid     {summary['uuid']}"
    yield f"parent   {'none' if parent is None else parent['uuid'] + ' ' + parent['root']}"
    yield f"epoch    {summary['epoch']}"
    yield f"root     {summary['root']}"
    yield f"created  {_time(summary['createdMs'])}"
    yield (f"stream   {summary['bytes']} bytes, {summary['frames']} frames, "
           f"version {summary['version']}, {'with' if summary['index'] else 'no'} index")
    for context in summary['contexts']:
        yield f"context  {_printable(context['name'])} ({context['kind']})"
        for tag in context.get('tags', ()):
            shown = json.dumps(tag['value'], ensure_ascii=True)
            if len(shown) > _TEXT_CHARS_MAX:
                shown = f"{shown[:_TEXT_CHARS_MAX]}… ({tag['bytes']} bytes)"
            yield f"  {_printable(tag['tag'])}: {tag['type']} = {shown}"
        if context['kind'] == 'memory':
            yield from _memory_text(summary['memory'])


def _memory_text(memory):
    for region in memory['regions']:
        digest = region['sha256'] or 'needs the parent'
        yield f"  region {region['base']:#x}: {region['bytes']} bytes, sha256 {digest}"
    counts = ', '.join(f'{count} {name}' for name, count in memory['pages'].items())
    yield f"  pages: {counts}; {memory['encodedBytes']} encoded bytes"


def _printable(name):
    return name if name.isprintable() else repr(name)


def _time(milliseconds):
    if milliseconds == 0:
        return 'not told'
    try:
        time = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=milliseconds)
    except OverflowError:
        return f'{milliseconds} ms after 1970'
    return time.isoformat(timespec='milliseconds')


def _parser():
    parser = argparse.ArgumentParser(prog='verify.py', description='Verifies a chkpt checkpoint.')
    parser.add_argument('stream', metavar='STREAM', help='a checkpoint stream, or a directory')
    parser.add_argument('--dir', action='store_true', help='STREAM is a directory of a dir: store')
    parser.add_argument('--parent', metavar='PARENT', action='append', default=[],
                        help='an ancestor: a stream, or a directory of a dir: store')
    parser.add_argument('--memory', metavar='OUT', help='write the memory of all regions to OUT')
    output = parser.add_mutually_exclusive_group()
    output.add_argument('--json', action='store_true', help='print the summary as JSON')
    output.add_argument('--cat', nargs=2, metavar=('CONTEXT', 'TAG'),
                        help='print the data of one value')
    return parser


def _read(path, is_directory):
    if is_directory:
        return read_directory(path)
    with open(path, 'rb') as file:
        return read_checkpoint(file)


def _read_parent(path):
    try:
        return _read(path, os.path.isdir(path))
    except Damage as damage:
        raise Damage(f'parent {path}: {damage.what}', damage.offset, damage.frame) from None


def _read_chain(arguments, stack):
    """The checkpoint, joined with its ancestors when they are given."""
    checkpoint = _read(arguments.stream, arguments.dir)
    stack.callback(checkpoint.close)
    parents = []
    for path in arguments.parent:
        parents.append(_read_parent(path))
        stack.callback(parents[-1].close)
    if parents:
        join_chain(checkpoint, parents)
    return checkpoint


def _print(arguments, parser, checkpoint):
    if arguments.cat is not None:
        context, tag = arguments.cat
        found = checkpoint.contexts.get(context)
        found = None if found is None else found.tags.get(tag)
        if found is None:
            parser.error(f'no tag {tag!r} in a context {context!r}')
        sys.stdout.buffer.write(found.data)
        return
    summary = summarize(checkpoint)
    if arguments.json:
        print(json.dumps(summary, indent=2))
    else:
        for line in _text(summary):
            print(line)


def main(argv):
    sys.stdout.reconfigure(errors='backslashreplace')
    parser = _parser()
    arguments = parser.parse_args(argv)
    with ExitStack() as stack:
        try:
            checkpoint = _read_chain(arguments, stack)
            if arguments.memory is not None:
                if checkpoint.memory is None:
                    parser.error('the checkpoint has no memory')
                if not checkpoint.memory.is_complete:
                    parser.error('some memory is that of the parent: --parent is wanted')
                with open(arguments.memory, 'wb') as file:
                    checkpoint.memory.write(file)
        except Damage as damage:
            print(f'damaged: {damage}', file=sys.stderr)
            return EXIT_DAMAGED
        except OSError as error:
            print(f'verify.py: {error}', file=sys.stderr)
            return EXIT_USAGE
        _print(arguments, parser, checkpoint)
    return EXIT_SOUND


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
