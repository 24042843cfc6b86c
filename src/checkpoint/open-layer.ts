/** A checkpoint opened for native threads that read it at any place: its index is read and verified, its blocks are not. */
import { FrameAccess } from '../context/frame-access.ts';
import { readIndexMap, type StreamMap } from '../context/inspect-index.ts';
import { CheckpointError } from '../errors/index.ts';
import { endPayloadBytes, streamHeaderBytes } from '../format/constants.ts';
import type { Digest64 } from '../format/digest.ts';
import { frameBytes } from '../format/frame-header.ts';
import { parseUuid } from '../format/uuid.ts';
import { describeRegions, type GuestMemory, RequestedBytes } from '../memory/index.ts';
import type { NativeLazyLayer } from '../native/index.ts';
import type { Store, StoreReader } from '../store/index.ts';

/** Why it cannot be. */
export interface NotLazy {
  readonly reason: string;
}

export interface OpenedLayer {
  readonly layer: NativeLazyLayer;
  /** Of a store that only JavaScript can read: it has taken over the reader, and must be closed. */
  readonly requests: RequestedBytes | undefined;
  readonly map: StreamMap;
  readonly headerBytes: Uint8Array;
}

/**
 * Opens the checkpoint `uuid` of `store` for loads into `memory`. The reader may be closed when native code has taken the layer over, unless
 * there are `requests`, which only loads have that `mayAsk` JavaScript for bytes. Rejects with errors of kind `damaged` and `io`, and
 * `CHKPT_VM_REGIONS`.
 */
export async function openLayer(
  reader: StoreReader,
  memory: GuestMemory,
  store: Store,
  uuid: string,
  digest: Digest64,
  { mayAsk = false }: { readonly mayAsk?: boolean } = {},
): Promise<OpenedLayer | NotLazy> {
  const { byteLength } = reader;
  const readAt = reader.readAt?.bind(reader);
  const extents = reader.extents?.();
  if (readAt === undefined || byteLength === undefined) return { reason: 'the store has no random access' };
  if (extents === undefined && !mayAsk) return { reason: 'native threads cannot read from this store' };
  const access = await FrameAccess.open(readAt, { digest, store: store.url });
  if (access.header.uuid !== uuid) return { reason: 'the checkpoint was replaced while it was opened' };
  const map = await readIndexMap(access, byteLength);
  if (map === undefined) return { reason: 'the checkpoint has no index' };
  const [expected, actual] = [describeRegions(memory.regions), describeRegions(map.regions)];
  if (expected !== actual) {
    throw new CheckpointError('CHKPT_VM_REGIONS', 'the checkpoint has other memory regions', {
      details: { expected, actual },
    });
  }
  const headerBytes = (await access.bytes(0, streamHeaderBytes)).slice();
  const { epoch } = access.header;
  // END, and behind it what it announces, are the end of the stream.
  const endOffset = map.bytes - map.end.tailBytes - frameBytes(endPayloadBytes);
  const hasParent = access.header.parent !== undefined;
  const layer = { uuid: parseUuid(uuid), epoch, hasParent, endOffset, groups: map.groups };
  if (extents !== undefined) return { layer: { ...layer, extents }, requests: undefined, map, headerBytes };
  const requests = new RequestedBytes(reader, store.url);
  return { layer: { ...layer, source: requests.native }, requests, map, headerBytes };
}
