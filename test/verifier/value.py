"""Names and tagged values (format section 5): which names are legal, what the bytes of a type mean.

Functions here raise ValueError with the broken rule; the caller knows the frame and adds the place.
"""

from struct import unpack

NAME_BYTES_MAX = 255

BYTES = 0
STRING = 1
BOOL = 2
VECTOR_BIT = 0x80

# Type code: name, struct letter. Vectors exist of these and of nothing else.
_SCALARS = {
    2: ('bool', 'B'),
    3: ('u8', 'B'), 4: ('u16', 'H'), 5: ('u32', 'I'), 6: ('u64', 'Q'),
    7: ('i8', 'b'), 8: ('i16', 'h'), 9: ('i32', 'i'), 10: ('i64', 'q'),
    11: ('f32', 'f'), 12: ('f64', 'd'),
}
_LETTER_BYTES = {'B': 1, 'b': 1, 'H': 2, 'h': 2, 'I': 4, 'i': 4, 'f': 4, 'Q': 8, 'q': 8, 'd': 8}


def parse_name(raw):
    """The text of a context name or tag."""
    if not 1 <= len(raw) <= NAME_BYTES_MAX:
        raise ValueError(f'a name of {len(raw)} bytes')
    try:
        name = raw.decode('utf-8')
    except UnicodeDecodeError:
        raise ValueError('a name that is not UTF-8') from None
    if any(byte < 0x20 or byte in b'/\x7f' for byte in raw):
        raise ValueError('a name with a character that is not allowed')
    if raw in (b'.', b'..'):
        raise ValueError('a name that is . or ..')
    return name


def type_name(code):
    if code == BYTES:
        return 'bytes'
    if code == STRING:
        return 'string'
    name = _SCALARS[code & ~VECTOR_BIT][0]
    return f'{name}[]' if code & VECTOR_BIT else name


def check_type(code, byte_count):
    """Refuses an unknown type, and a length the type cannot have. Needs no data byte."""
    if code in (BYTES, STRING):
        return
    scalar = _SCALARS.get(code & ~VECTOR_BIT)
    if scalar is None:
        raise ValueError(f'unknown value type {code}')
    element_bytes = _LETTER_BYTES[scalar[1]]
    if code & VECTOR_BIT:
        if byte_count % element_bytes != 0:
            raise ValueError(f'{byte_count} data bytes are no vector of {scalar[0]}')
    elif byte_count != element_bytes:
        raise ValueError(f'{byte_count} data bytes for a {scalar[0]}')


def check_data(code, data):
    """Refuses data that the type excludes, once all of it is here."""
    if code == STRING:
        try:
            data.decode('utf-8')
        except UnicodeDecodeError:
            raise ValueError('a string that is not UTF-8') from None
    elif code & ~VECTOR_BIT == BOOL and data.strip(b'\0\1'):
        raise ValueError('a bool that is neither 0 nor 1')


def decode(code, data):
    """The value for a summary: bytes as hex, floats as their repr, vectors as lists."""
    if code == BYTES:
        return data.hex()
    if code == STRING:
        return data.decode('utf-8')
    letter = _SCALARS[code & ~VECTOR_BIT][1]
    values = list(unpack(f'<{len(data) // _LETTER_BYTES[letter]}{letter}', data))
    if code & ~VECTOR_BIT == BOOL:
        values = [value != 0 for value in values]
    elif letter in 'fd':
        values = [repr(value) for value in values]
    return values if code & VECTOR_BIT else values[0]
