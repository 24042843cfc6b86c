"""A small greedy LZ4 block encoder for the tests: short, not fast, not thrifty."""


def _length(count):
    """The bytes behind a token field of 15 for a length of `count`, nothing when it fitted."""
    if count < 15:
        return b''
    full, rest = divmod(count - 15, 255)
    return b'\xff' * full + bytes([rest])


def _sequence(literals, distance=None, match=0):
    token = min(len(literals), 15) << 4
    if distance is None:
        return bytes([token]) + _length(len(literals)) + literals
    token |= min(match - 4, 15)
    return (bytes([token]) + _length(len(literals)) + literals
            + distance.to_bytes(2, 'little') + _length(match - 4))


def encode_block(data):
    """One LZ4 block that decodes to `data` and keeps the rules for its end."""
    out = bytearray()
    places = {}
    literal_start = 0
    at = 0
    while at + 12 <= len(data):
        key = data[at:at + 4]
        place = places.get(key)
        places[key] = at
        if place is None or at - place > 65_535:
            at += 1
            continue
        match = 4
        while at + match < len(data) - 5 and data[place + match] == data[at + match]:
            match += 1
        out += _sequence(data[literal_start:at], at - place, match)
        at += match
        literal_start = at
    return bytes(out + _sequence(data[literal_start:]))
