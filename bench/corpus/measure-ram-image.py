"""Measures a RAM image page by page and writes what it found, and what made the image, as JSON.

Usage: measure-ram-image.py IMAGE OUT_JSON [KEY=VALUE]...
       measure-ram-image.py --check IMAGE JSON      exit code 0 when the image has the sha256 that JSON says
KEY=VALUE pairs are recorded as they are; PACKAGES=FILE reads lines of "name version".

Classes of a page of 4096 bytes: zero; fill (one 8-byte word repeated); duplicate (equal to an earlier page that is
neither); distinct. Python 3 standard library only.
"""

import hashlib
import json
import mmap
import os
import sys

PAGE_BYTES = 4096
DIGEST_BYTES = 16
ZERO_PAGE = bytes(PAGE_BYTES)
DECIMALS = 4


def measure(path):
    """Counts the classes and hashes the image in one pass."""
    counts = {'zero': 0, 'fill': 0, 'duplicate': 0, 'distinct': 0}
    seen = set()
    whole = hashlib.sha256()
    chunk_bytes = 1024 * PAGE_BYTES
    with open(path, 'rb') as image, mmap.mmap(image.fileno(), 0, prot=mmap.PROT_READ) as memory:
        for start in range(0, len(memory), chunk_bytes):
            chunk = memory[start:start + chunk_bytes]
            whole.update(chunk)
            for offset in range(0, len(chunk), PAGE_BYTES):
                page = chunk[offset:offset + PAGE_BYTES]
                counts[classify(page, seen)] += 1
        byte_count = len(memory)
    return byte_count, whole.hexdigest(), counts


def classify(page, seen):
    if page == ZERO_PAGE:
        return 'zero'
    if page[:8] == page[-8:] and page == page[:8] * (PAGE_BYTES // 8):
        return 'fill'
    digest = hashlib.blake2b(page, digest_size=DIGEST_BYTES).digest()
    if digest in seen:
        return 'duplicate'
    seen.add(digest)
    return 'distinct'


def read_packages(path):
    with open(path, encoding='utf-8') as lines:
        return dict(line.split() for line in lines if line.strip())


def is_complete(image, facts):
    """True when both files are there and belong together."""
    try:
        with open(facts, encoding='utf-8') as source:
            expected = json.load(source)['sha256']
        whole = hashlib.sha256()
        with open(image, 'rb') as source:
            while chunk := source.read(1 << 20):
                whole.update(chunk)
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return whole.hexdigest() == expected


def main():
    if sys.argv[1] == '--check':
        return 0 if is_complete(sys.argv[2], sys.argv[3]) else 1
    image, out = sys.argv[1], sys.argv[2]
    facts = dict(pair.split('=', 1) for pair in sys.argv[3:])
    byte_count, sha256, counts = measure(image)
    page_count = sum(counts.values())
    packages = facts.pop('PACKAGES', None)
    document = {
        'image': os.path.basename(image),
        'byteCount': byte_count,
        'sha256': sha256,
        **facts,
        'pageCount': page_count,
        'pages': counts,
        'pageShares': {name: round(count / page_count, DECIMALS) for name, count in counts.items()},
        **({'packages': read_packages(packages)} if packages else {}),
    }
    part = f'{out}.part'
    with open(part, 'w', encoding='utf-8') as target:
        json.dump(document, target, indent=2)
        target.write('\n')
    os.replace(part, out)
    for name, share in document['pageShares'].items():
        print(f'{name:>9} {100 * share:6.2f} %')
    return 0


if __name__ == '__main__':
    sys.exit(main())
