"""Damage: the one exception by which every part of the verifier refuses a checkpoint.

Offsets are bytes from the first byte of the stream. `frame` is the sequence number the frame has
by its place in the stream, or None for what is no frame: stream header, footer, manifest.
"""


class Damage(Exception):
    def __init__(self, what, offset, frame=None):
        super().__init__(what, offset, frame)
        self.what = what
        self.offset = offset
        self.frame = frame

    def __str__(self):
        number = '-' if self.frame is None else self.frame
        return f'{self.what} at offset {self.offset} (frame {number})'
