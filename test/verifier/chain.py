"""Chains (format section 13): checks that parents belong to their children, and joins their pages.

Damage tells offsets in the stream header of the child that names the parent.
"""

from uuid import UUID

from damage import Damage

_HEADER_CONTEXT = 'header'
_STRING = 1
_PARENT_UUID_OFFSET = 32
_EPOCH_OFFSET = 48


def join_chain(newest, parents):
    """Lets the pages that `newest` and its ancestors leave to a parent be found in it.

    `parents` are all ancestors, in any order.
    """
    rest = list(parents)
    child = newest
    while child.has_parent:
        parent = next((one for one in rest if _stands_for(one, child.parent, child.parent_root)),
                      None)
        if parent is None:
            uuid = str(UUID(bytes=child.parent))
            root = child.parent_root.hex()
            raise Damage(f'no parent has UUID {uuid} and root {root}', _PARENT_UUID_OFFSET)
        if parent.epoch >= child.epoch:
            raise Damage(f'epoch {child.epoch} and a parent of epoch {parent.epoch}', _EPOCH_OFFSET)
        if _region_table(parent) != _region_table(child):
            raise Damage('a parent with another region table', _PARENT_UUID_OFFSET)
        if child.memory is not None:
            child.memory.pages.parent = parent.memory.pages
        rest.remove(parent)
        child = parent
    if rest:
        raise Damage(f'{str(UUID(bytes=rest[0].uuid))} is not of the chain', _PARENT_UUID_OFFSET)


def _stands_for(checkpoint, uuid, root):
    """True for the checkpoint of that name, and for one that was put in its place."""
    if (checkpoint.uuid, checkpoint.root) == (uuid, root):
        return True
    replaced = (_text(checkpoint, 'replaces.uuid'), _text(checkpoint, 'replaces.root'))
    return replaced == (str(UUID(bytes=uuid)), root.hex())


def _text(checkpoint, name):
    context = checkpoint.contexts.get(_HEADER_CONTEXT)
    tag = None if context is None else context.tags.get(name)
    return None if tag is None or tag.type != _STRING else tag.value


def _region_table(checkpoint):
    if checkpoint.memory is None:
        return []
    return [(region.base, region.byte_count) for region in checkpoint.memory.regions]
