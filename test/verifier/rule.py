"""The form of rule tests: one small stream for one broken rule, and what the verifier says to it.

A case is a function that gives a stream; its docstring is the rule in the words of the format. The
digests of the stream are sound, so only the check of that very rule can refuse it, and the message
must be the one of that check.
"""

from types import SimpleNamespace
from unittest.mock import patch

from encoder import PAGE, StreamWriter
from sample import write_small


class Cases(list):
    """The cases of one part of the format, filled by decorators."""

    def refused(self, message, **limits):
        """`limits`: constants of the reader to lower for this case, as module_CONSTANT=value."""
        def add(build):
            self.append(SimpleNamespace(name=build.__name__, rule=build.__doc__, build=build,
                                        message=message, limits=limits))
            return build
        return add

    def legal(self, **limits):
        return self.refused(None, **limits)


def lowered(limits):
    """Context managers that set the constants of the reader, e.g. stream_TAG_COUNT_MAX=3."""
    return [patch('.'.join(name.split('_', 1)), value) for name, value in limits.items()]


def in_values(**header):
    """A writer inside of an open value context."""
    writer = StreamWriter(**header)
    writer.open('values')
    return writer


def in_memory(*regions, **header):
    """A writer behind the region table: 20 pages and 16 pages unless told otherwise."""
    writer = StreamWriter(**header)
    writer.open('memory', 1)
    writer.regions(*(regions or ((0, 20 * PAGE), (1 << 32, 16 * PAGE))))
    return writer


def whole(index=True, **end):
    """The small sample with its END (and its document or footer) overridden."""
    writer = StreamWriter()
    write_small(writer)
    return writer.finish(index, **end)
