"""XXH3 against digests that the C library of xxHash 0.8 gave for the same bytes.

The bytes are `noise(length)`: the top bytes of a 64-bit linear congruential generator.
"""

from unittest import TestCase

from xxh3 import xxh3_64

_MULTIPLIER = 6364136223846793005
_INCREMENT = 1442695040888963407


def noise(length):
    state = 1
    out = bytearray()
    for _ in range(length):
        state = (state * _MULTIPLIER + _INCREMENT) & 0xFFFFFFFFFFFFFFFF
        out.append(state >> 56)
    return bytes(out)


# Both sides of every border between length classes, stripes (64) and blocks (1024).
DIGESTS = [
    (0, 0x2d06800538d394c2), (1, 0xc00f9d4f580c0c3a), (2, 0xb248061fb52bd64c),
    (3, 0xe92112d1e602af4a), (4, 0x9008de7e100606d1), (5, 0xaba4062f24845bdc),
    (6, 0xf66099773ac2a2fe), (7, 0x7187a1232e2d811b), (8, 0xcca6ee6f8e080c52),
    (9, 0x568f9d2e69ad8bd0), (11, 0x687ba7422b340eb7), (12, 0x373da156a0ef76b0),
    (15, 0xf79a07c55bebf28a), (16, 0x600a07a4f5a9911c), (17, 0xdeab0265f35dfc24),
    (31, 0x423b58cf0cc7d932), (32, 0xd04581c566616653), (33, 0xe2f96cd271e72881),
    (48, 0xd95170ea9c7d3100), (63, 0x0ede7f30a620477c), (64, 0xad0685dabb3ce66b),
    (65, 0x7d4e3da065c21b2d), (95, 0xede2ab85c4e017bd), (96, 0xbf9a1938301428ca),
    (97, 0xae7c260494b7847c), (127, 0x422fa93af255d6f6), (128, 0x410bd3b4d8d84f51),
    (129, 0x55964eec39625032), (143, 0x8733fa8029529e24), (144, 0x827fbbc03ec48dd7),
    (145, 0x72c2d471c12ed34d), (175, 0x8cda417937be48ff), (191, 0xde67850fd730b942),
    (192, 0x4d9f83e45b7807b4), (223, 0xc1c0f286bddbd805), (239, 0xf5e234500a1f2b94),
    (240, 0x977b659bdc81fdb1), (241, 0x2cb1ed4a30c8bded), (255, 0xc77eae9c20c21088),
    (256, 0x7fd97c6450f19383), (257, 0x42c723a93a4c46b9), (319, 0x27f0d3cec9859a7f),
    (320, 0x98fae8bdeca76e58), (511, 0xf2bf2354a8c603a7), (512, 0xd21b608b44320be0),
    (513, 0x4b109def33495091), (960, 0xe17f7d121a3c8740), (1023, 0x296b8bdbd696752e),
    (1024, 0x5ec111a1e5a293ae), (1025, 0x5ea0264528a903fc), (1088, 0x5caa733531330766),
    (1089, 0x093aae8d6736e7b3), (2047, 0xa8a55cc80e1493a4), (2048, 0x82651c64d545e737),
    (2049, 0x35fa9759e87c7270), (4096, 0xa76570548864595e), (65536, 0xd062f29c26da8cf9),
    (65552, 0x3cfa7da61a1ff0a5), (69648, 0x8ebfada32374052c), (100000, 0x17728b9ba27f68a8),
]


class Xxh3Test(TestCase):
    def test_digest_is_that_of_the_c_library_for_every_class_of_length(self):
        data = noise(max(length for length, _ in DIGESTS))
        for length, digest in DIGESTS:
            with self.subTest(length=length):
                self.assertEqual(xxh3_64(data[:length]), digest)

    def test_digest_is_the_same_for_every_bytes_like_type(self):
        for length in (0, 3, 8, 16, 100, 200, 1000, 5000):
            data = noise(length)
            self.assertEqual(xxh3_64(data), xxh3_64(bytearray(data)))
            self.assertEqual(xxh3_64(data), xxh3_64(memoryview(data)))
