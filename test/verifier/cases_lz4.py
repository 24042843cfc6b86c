"""LZ4 blocks: vectors of the C library (fast, high compression), and blocks that must not pass."""

from random import Random
from unittest import TestCase

from cases_xxh3 import noise
from lz4_block import Lz4Error, decode_block
from lz4_encoder import encode_block

# Name, content, block in hex.
BLOCKS = [
    ('nothing', b'',
     '00'),
    ('one', b'a',
     '1061'),
    ('twelve', b'a' * 12,
     'c0616161616161616161616161'),
    ('thirteen', b'a' * 13,
     '13610100506161616161'),
    ('page of zeros', bytes(4096),
     '1f000100fffffffffffffffffffffffffffffff6500000000000'),
    ('text', b'chkpt checkpoint ' * 40,
     'f00063686b707420636865636b706f696e0b000f1100ffff7f506f696e7420'),
    ('text', b'chkpt checkpoint ' * 40,
     'ff0263686b707420636865636b706f696e74201100ffff81506f696e7420'),
    ('period 3', b'abc' * 100 + b'xyz12',
     '3f6162630300ff175078797a3132'),
    ('long literals', noise(290) * 2,
     'ffff146c82a562cb808d10d632be89c8513ebf6c929f34ddfa8c9f63c9960ef6e348a352'
     + '8c8a3fcc2f044e39a3fc5b94492f8f032e7549a20098f95befd61248a23cd7a8168839e9'
     + '1f803558fac9f6095d9c92791970132342aa04168bad0ae6dbb1855ddcb4749032b8fe38'
     + 'a6684b514a33dbbfe6476d5eeadf9e9a24b268ab923be9285bda9693c08fdb43ecc4699f'
     + '455f0c891e9118b378c54b315ef26e3465a93f6127625c36a9e54d42ca5da87e07b03fcb'
     + '76a87206397b81f3780420e5427a2084a0c14cf5d665d475ab6f50afbf0af92d8b45ebbf'
     + 'b95afa1a47e61756f9c1e2d24ec2ba071c80f8a69615be3b1548d6e25560f5cf002fdaa7'
     + '4a9d5ec200044323c67053f265ec5bcbfd6aea47eb340f464e8a8f24a2328fc61768e4ff'
     + '67c3b1388f2201ff0b5067c3b1388f'),
    ('far match', noise(40) + bytes(65_400) + noise(40) + bytes(20),
     'ff1a6c82a562cb808d10d632be89c8513ebf6c929f34ddfa8c9f63c9960ef6e348a3528c'
     + '8a3fcc2f044e000100'
     + 'ff' * 256
     + '640fa0ff24500000000000'),
]

# What is wrong, block in hex, decoded size, message.
ILLEGAL = [
    ('empty input', '', 0, 'before its last literals'),
    ('no last literals', '40616263640400', 8, 'last literals'),
    ('cut literals', '506162', 5, 'literals run beyond the block'),
    ('cut literal length', 'f0ff', 300, 'inside a length'),
    ('cut offset', '106101', 30, 'inside a match offset'),
    ('cut match length', '1f610100ff', 600, 'inside a length'),
    ('offset zero', '1a6100005061616161616161', 20, 'before the first decoded byte'),
    ('offset beyond', '1a6102005061616161616161', 20, 'before the first decoded byte'),
    ('more literals than size', '50616263646566', 4, 'literals run beyond the decoded size'),
    ('fewer bytes than size', '506162636465', 6, 'decodes to 5 bytes instead of 6'),
    ('match beyond size', '1f610100ff0050616161616161', 20, 'into the last literals'),
    ('match into last 5', '14610100406161616161', 13, 'into the last literals'),
    ('match in last 12', '1061010070616161616161', 12, 'into the last literals'),
    ('endless length', '1f610100' + 'ff' * 1000 + '00', 4096, 'into the last literals'),
    ('bytes behind', '1061' + '00', 1, 'inside a match offset'),
]


class Lz4BlockTest(TestCase):
    def test_blocks_of_the_c_library_decode_to_their_content(self):
        for name, content, block in BLOCKS:
            with self.subTest(name):
                self.assertEqual(decode_block(bytes.fromhex(block), len(content)), content)

    def test_a_block_is_refused_for_every_other_size(self):
        for name, content, block in BLOCKS:
            for size in (len(content) - 1, len(content) + 1):
                with self.subTest(name, size=size), self.assertRaises(Lz4Error):
                    decode_block(bytes.fromhex(block), size)

    def test_illegal_blocks_are_refused_for_the_right_reason(self):
        for name, block, size, message in ILLEGAL:
            with self.subTest(name), self.assertRaisesRegex(Lz4Error, message):
                decode_block(bytes.fromhex(block), size)

    def test_a_block_cut_anywhere_is_refused(self):
        for name, content, block in BLOCKS:
            block = bytes.fromhex(block)
            for size in range(len(block)):
                with self.subTest(name, size=size), self.assertRaises(Lz4Error):
                    decode_block(block[:size], len(content))

    def test_random_damage_decodes_to_the_size_or_is_refused(self):
        random = Random(4)
        for _ in range(4000):
            _, content, block = random.choice(BLOCKS[1:])
            damaged = bytearray.fromhex(block)
            damaged[random.randrange(min(len(damaged), 60))] = random.randrange(256)
            try:
                self.assertEqual(len(decode_block(bytes(damaged), len(content))), len(content))
            except Lz4Error:
                pass

    def test_the_test_encoder_and_the_decoder_are_inverse(self):
        random = Random(5)
        for length in (0, 1, 11, 12, 13, 17, 300, 4096, 70_000):
            for letters in (1, 2, 3, 256):
                content = bytes(random.randrange(letters) for _ in range(length))
                with self.subTest(length=length, letters=letters):
                    self.assertEqual(decode_block(encode_block(content), length), content)
