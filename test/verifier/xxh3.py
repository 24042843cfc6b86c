"""XXH3-64 with seed 0 and the default secret, written from the public xxHash specification.

Python integers do not overflow. Sums and products therefore run unmasked and are cut to 64 bits
where the algorithm looks at high bits: at a shift, a multiplication by the other half, or the end.

Inputs above 240 bytes are folded block by block (1024 bytes). Inside a block the accumulators only
grow by addition, so each lane is one sum over its column of the block; the sums run in C.
"""

from operator import mul
from struct import unpack, unpack_from

_MASK = 0xFFFFFFFFFFFFFFFF

_PRIME32_1 = 0x9E3779B1
_PRIME32_2 = 0x85EBCA77
_PRIME32_3 = 0xC2B2AE3D
_PRIME64_1 = 0x9E3779B185EBCA87
_PRIME64_2 = 0xC2B2AE3D27D4EB4F
_PRIME64_3 = 0x165667B19E3779F9
_PRIME64_4 = 0x85EBCA77C2B2AE63
_PRIME64_5 = 0x27D4EB2F165667C5
_PRIME_MX1 = 0x165667919E3779F9
_PRIME_MX2 = 0x9FB21C651E98DF25

_SECRET = bytes.fromhex(
    'b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f'
    'cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c'
    '3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8'
    'a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364'
    'eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e'
    '2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e'
)

# The secret word at every byte offset: most steps read it unaligned.
_WORD_AT = [unpack_from('<Q', _SECRET, offset)[0] for offset in range(len(_SECRET) - 7)]

_STRIPE_BYTES = 64
_BLOCK_BYTES = 1024
_BLOCK_STRIPES = _BLOCK_BYTES // _STRIPE_BYTES

# Stripe n of a block is mixed with the 64 secret bytes at 8n: one key for a run of n stripes.
_STRIPE_KEYS = b''.join(_SECRET[8 * n:8 * n + _STRIPE_BYTES] for n in range(_BLOCK_STRIPES))
_KEY_OF_STRIPES = [
    int.from_bytes(_STRIPE_KEYS[:n * _STRIPE_BYTES], 'little') for n in range(_BLOCK_STRIPES + 1)
]
_KEY_OF_LAST_STRIPE = int.from_bytes(_SECRET[121:185], 'little')
_SCRAMBLE_WORDS = tuple(_WORD_AT[128 + 8 * lane] for lane in range(8))
_MERGE_WORDS = tuple(_WORD_AT[11 + 8 * lane] for lane in range(8))

_EMPTY_FLIP = _WORD_AT[56] ^ _WORD_AT[64]
_FLIP_1_TO_3 = (_WORD_AT[0] ^ (_WORD_AT[0] >> 32)) & 0xFFFFFFFF
_FLIP_4_TO_8 = _WORD_AT[8] ^ _WORD_AT[16]
_FLIP_9_TO_16_LOW = _WORD_AT[24] ^ _WORD_AT[32]
_FLIP_9_TO_16_HIGH = _WORD_AT[40] ^ _WORD_AT[48]


def xxh3_64(data):
    """The digest of a bytes-like object, as an int below 2^64."""
    length = len(data)
    if length > 240:
        return _hash_large(data, length)
    if length > 128:
        return _hash_129_to_240(data, length)
    if length > 16:
        return _hash_17_to_128(data, length)
    if length > 8:
        return _hash_9_to_16(data, length)
    if length > 3:
        return _hash_4_to_8(data, length)
    if length > 0:
        return _hash_1_to_3(data, length)
    return _avalanche_xxh64(_EMPTY_FLIP)


def _avalanche(value):
    value &= _MASK
    value = (value ^ (value >> 37)) * _PRIME_MX1 & _MASK
    return value ^ (value >> 32)


def _avalanche_xxh64(value):
    value = (value ^ (value >> 33)) * _PRIME64_2 & _MASK
    value = (value ^ (value >> 29)) * _PRIME64_3 & _MASK
    return value ^ (value >> 32)


def _hash_1_to_3(data, length):
    combined = data[-1] | length << 8 | data[0] << 16 | data[length >> 1] << 24
    return _avalanche_xxh64(_FLIP_1_TO_3 ^ combined)


def _hash_4_to_8(data, length):
    first = unpack_from('<I', data)[0]
    last = unpack_from('<I', data, length - 4)[0]
    value = _FLIP_4_TO_8 ^ (first << 32 | last)
    turned_49 = (value << 49 | value >> 15) & _MASK
    turned_24 = (value << 24 | value >> 40) & _MASK
    value = (value ^ turned_49 ^ turned_24) * _PRIME_MX2 & _MASK
    value = (value ^ ((value >> 35) + length)) * _PRIME_MX2 & _MASK
    return value ^ (value >> 28)


def _hash_9_to_16(data, length):
    low = _FLIP_9_TO_16_LOW ^ unpack_from('<Q', data)[0]
    high = _FLIP_9_TO_16_HIGH ^ unpack_from('<Q', data, length - 8)[0]
    product = low * high
    low_swapped = int.from_bytes(low.to_bytes(8, 'little'), 'big')
    return _avalanche(length + low_swapped + high + ((product & _MASK) ^ (product >> 64)))


def _hash_17_to_128(data, length):
    word_at = _WORD_AT
    total = length * _PRIME64_1
    # Pairs of 16-byte chunks from both ends towards the middle, where they may overlap.
    for index in range((length - 1) // 32 + 1):
        first, second = unpack_from('<QQ', data, 16 * index)
        key = 32 * index
        product = (first ^ word_at[key]) * (second ^ word_at[key + 8])
        total += (product & _MASK) ^ (product >> 64)
        first, second = unpack_from('<QQ', data, length - 16 * index - 16)
        product = (first ^ word_at[key + 16]) * (second ^ word_at[key + 24])
        total += (product & _MASK) ^ (product >> 64)
    return _avalanche(total)


def _mix_chunk(data, offset, key):
    first, second = unpack_from('<QQ', data, offset)
    product = (first ^ _WORD_AT[key]) * (second ^ _WORD_AT[key + 8])
    return (product & _MASK) ^ (product >> 64)


def _hash_129_to_240(data, length):
    total = length * _PRIME64_1
    for index in range(8):
        total += _mix_chunk(data, 16 * index, 16 * index)
    total = _avalanche(total)
    for index in range(8, length // 16):
        total += _mix_chunk(data, 16 * index, 16 * (index - 8) + 3)
    return _avalanche(total + _mix_chunk(data, length - 16, 119))


def _accumulate(lanes, chunk, key):
    """Adds a run of whole stripes to the eight lanes; `key` is the secret laid along the run."""
    size = len(chunk)
    mixed = (int.from_bytes(chunk, 'little') ^ key).to_bytes(size, 'little')
    words = unpack(f'<{size // 8}Q', chunk)
    halves = unpack(f'<{size // 4}I', mixed)
    for lane in range(8):
        products = map(mul, halves[2 * lane::16], halves[2 * lane + 1::16])
        lanes[lane] += sum(products) + sum(words[lane ^ 1::8])


def _hash_large(data, length):
    view = memoryview(data)
    lanes = [_PRIME32_3, _PRIME64_1, _PRIME64_2, _PRIME64_3,
             _PRIME64_4, _PRIME32_2, _PRIME64_5, _PRIME32_1]
    # The last block, full or not, is never scrambled: it belongs to the end.
    last_block = (length - 1) // _BLOCK_BYTES * _BLOCK_BYTES
    block_key = _KEY_OF_STRIPES[_BLOCK_STRIPES]
    for offset in range(0, last_block, _BLOCK_BYTES):
        _accumulate(lanes, view[offset:offset + _BLOCK_BYTES], block_key)
        for lane in range(8):
            value = lanes[lane] & _MASK
            value ^= value >> 47
            lanes[lane] = (value ^ _SCRAMBLE_WORDS[lane]) * _PRIME32_1 & _MASK
    stripes = (length - 1 - last_block) // _STRIPE_BYTES
    rest = view[last_block:last_block + stripes * _STRIPE_BYTES]
    _accumulate(lanes, rest, _KEY_OF_STRIPES[stripes])
    _accumulate(lanes, view[length - _STRIPE_BYTES:], _KEY_OF_LAST_STRIPE)
    total = length * _PRIME64_1
    for lane in range(0, 8, 2):
        left = (lanes[lane] & _MASK) ^ _MERGE_WORDS[lane]
        right = (lanes[lane + 1] & _MASK) ^ _MERGE_WORDS[lane + 1]
        product = left * right
        total += (product & _MASK) ^ (product >> 64)
    return _avalanche(total)
