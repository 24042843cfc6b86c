"""MANIFEST.json of a dir: store by itself: form, keys, types, own digest (docs/stores.md)."""

import json
import re
from hashlib import sha256

from damage import Damage

MANIFEST_BYTES_MAX = 64 << 20
SEGMENT_COUNT_MAX = 65_536 + 2
KINDS = ('start', 'values', 'memory', 'end')

_SAFE_INTEGER_MAX = 2**53 - 1
_UUID = re.compile(r'[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}')
_GENERATION = re.compile(rf'({_UUID.pattern})(\.([2-9]|[1-9][0-9]+))?')
_EPOCH = re.compile(r'0|[1-9][0-9]{0,19}')
_DIGEST = re.compile(r'[0-9a-f]{64}')


def manifest_damage(what, offset=0):
    return Damage(f'manifest: {what}', offset)


def _is_text(pattern):
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_count(value):
    return type(value) is int and 0 <= value <= _SAFE_INTEGER_MAX


def _is_string(value):
    return isinstance(value, str)


# Key to what its value must be, in the order of the file.
_KEYS = {
    'format': lambda value: value == 'chkpt directory',
    'version': lambda value: type(value) is int and value == 1,
    'uuid': _is_text(_UUID),
    'parent': lambda value: value is None or _is_text(_UUID)(value),
    'epoch': _is_text(_EPOCH),
    'root': _is_text(_DIGEST),
    'bytes': _is_count,
    'generation': _is_text(_GENERATION),
    'segments': lambda value: isinstance(value, list) and 2 <= len(value) <= SEGMENT_COUNT_MAX,
    'digest': _is_text(_DIGEST),
}
_SEGMENT_KEYS = {
    'name': _is_string,
    'kind': lambda value: value in KINDS,
    'file': _is_string,
    'bytes': _is_count,
    'frames': _is_count,
    'digest': _is_text(_DIGEST),
}


def parse_manifest(raw):
    """The manifest as a dict whose keys and types are as the document says."""
    if len(raw) > MANIFEST_BYTES_MAX:
        raise manifest_damage('more than 64 MiB')
    try:
        manifest = json.loads(raw.decode('utf-8'))
    except (ValueError, RecursionError):
        raise manifest_damage('not JSON') from None
    _check_keys(manifest, _KEYS, 'manifest')
    for number, segment in enumerate(manifest['segments']):
        _check_keys(segment, _SEGMENT_KEYS, f'segment {number}')
    if _GENERATION.fullmatch(manifest['generation'])[1] != manifest['uuid']:
        raise manifest_damage('generation is not called after the checkpoint')
    _check_bytes(manifest, raw)
    return manifest


def _check_keys(value, keys, where):
    if not isinstance(value, dict) or list(value) != list(keys):
        raise manifest_damage(f'keys of the {where} are not those of the document')
    for key, is_legal in keys.items():
        if not is_legal(value[key]):
            raise manifest_damage(f'{key} of the {where} is not legal')


def _check_bytes(manifest, raw):
    """The one form the file may have, and the digest over the canonical form (RFC 8785)."""
    content = {key: value for key, value in manifest.items() if key != 'digest'}
    try:
        pretty = json.dumps(manifest, indent=2, ensure_ascii=False).encode() + b'\n'
        canonical = json.dumps(content, sort_keys=True, separators=(',', ':'),
                               ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise manifest_damage('a string that is not Unicode') from None
    if pretty != raw:
        raise manifest_damage('not the form that chkpt writes')
    if manifest['digest'] != sha256(canonical).hexdigest():
        raise manifest_damage('digest mismatch')
