/**
 * Every bound on what a checkpoint may contain, in one table. `docs/format.md` states the same numbers.
 *
 * All of them are checked before memory is allocated. Raising one is compatible; lowering one is a format change.
 */

/** Unit of guest memory, in bytes. */
export const pageBytes = 4096;

/** Pages of one block: the unit of compression and of random access (64 KiB: the knee of the LZ4 ratio curve). */
export const blockPagesMax = 16;

/** Blocks of one BLOCK_INDEX group (512 MiB): bounds what a writer keeps in memory whatever the guest's size. */
export const groupBlocksMax = 8192;

/** Most payload bytes of any frame: one piece of a value, or one block of incompressible pages with its table. */
export const framePayloadBytesMax = 1024 * 1024 + 64 * 1024;

/** Most bytes of a value that one TAG or TAG_MORE frame carries. */
export const tagPieceBytesMax = 1024 * 1024;

/** Longest context name or tag, in bytes of UTF-8. */
export const nameBytesMax = 255;

/** Most contexts of a checkpoint: bounds the set of names a reader keeps. */
export const contextCountMax = 65_536;

/** Most ancestors of an incremental checkpoint that a load follows. */
export const chainDepthMax = 65_536;

/** Most tags of a checkpoint. */
export const tagCountMax = 1_048_576;

/** Most bytes of all values of a checkpoint together, so that a forged length cannot make a load allocate. */
export const valueBytesMax = 256 * 1024 * 1024;

/** Most memory regions of a machine. */
export const regionCountMax = 256;

/** Most bytes of guest memory of one machine: 16 TiB. */
export const memoryBytesMax = 16n * 1024n ** 4n;

/** Most ranges of memory that one checkpoint records as scrubbed or left out. */
export const scrubCountMax = 65_536;

/** Guest-physical addresses stay below this. */
export const addressMax = 1n << 52n;

/** Most bytes of an index document: every context and tag with its longest name, and one entry per group. */
export const indexBytesMax = 384 * 1024 * 1024;

/** Most bytes of a MANIFEST.json, read into memory as a whole. */
export const manifestBytesMax = 64 * 1024 * 1024;

/** Most bytes of a map beside a memory context with a pool: 16 million pieces of 24 bytes, read into memory as a whole. */
export const poolMapBytesMax = 384 * 1024 * 1024;

/** Most worker threads of one save or load. */
export const threadsMax = 64;

/** Longest name of a guest in the purpose of a connection, in bytes of UTF-8. */
export const guestBytesMax = 255;

/** Most connections of one migration. */
export const streamCountMax = 64;

/** Most payload bytes of one message of a handshake, or of a refusal. */
export const handshakePayloadBytesMax = 1024;

/** Most bytes that are read from a connection before it is authenticated. */
export const unauthenticatedBytesMax = 16 * 1024;

/** Most connections of a listener that are not authenticated yet, in all and from one address; the oldest gives way. */
export const unauthenticatedCountMax = 64;
export const unauthenticatedPerAddressMax = 8;

/** Bytes of a control message of a migration. */
export const migrationControlBytesMax = 256 * 1024;
/** Bytes of one piece of a stream of a migration; nothing is allocated for it. */
export const migrationDataBytesMax = 16 * 1024 * 1024;
/** What one probe of a link may take of the destination: bytes, which are thrown away; milliseconds; connections. */
export const probeBytesMax = 4 * 1024 ** 3;
export const probeMsMax = 10_000;
export const probeStreamsMax = 16;

/** Of an m5.cpt: bytes of the file, bytes of one line, and sections. Values of a checkpoint take 4 bytes for 3. */
export const gem5TextBytesMax = 512 * 1024 * 1024;
export const gem5LineBytesMax = 16 * 1024 * 1024;
export const gem5SectionCountMax = 1_048_576;

/** Of the manifest beside it: 16 bytes a member of a memory store. */
export const gem5ManifestBytesMax = 128 * 1024 * 1024;
