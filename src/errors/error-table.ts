/**
 * The closed table of everything that can go wrong while operating. Codes are API: they are never renamed.
 *
 * `kind` decides the exit code of the CLI: `damaged` 3, `usage` 2, `doubt` 4, everything else 1.
 * Wrong arguments of a JavaScript caller are `TypeError` or `RangeError`, not entries of this table.
 */
export type ErrorKind =
  | 'damaged'
  | 'mismatch'
  | 'state'
  | 'io'
  | 'usage'
  | 'unsupported'
  | 'aborted'
  | 'doubt';

export interface ErrorEntry {
  readonly kind: ErrorKind;
  /** When it is raised. */
  readonly when: string;
  /** What the caller can do. */
  readonly advice: string;
}

export const errorTable = {
  // Damage: the bytes are not a whole, unmodified checkpoint.
  CHKPT_BAD_MAGIC: {
    kind: 'damaged',
    when: 'The stream does not start with the magic of a chkpt checkpoint.',
    advice: 'check that this is a chkpt checkpoint and that the transfer was binary',
  },
  CHKPT_DIGEST: {
    kind: 'damaged',
    when: 'A digest does not match its bytes. Checked before anything is decoded.',
    advice: 'do not retry these bytes; load an older checkpoint or fetch this one again',
  },
  CHKPT_TRUNCATED: {
    kind: 'damaged',
    when: 'The stream ends before its END frame, or inside what END announces.',
    advice: 'fetch the checkpoint again, or load an older one',
  },
  CHKPT_TRAILING_DATA: {
    kind: 'damaged',
    when: 'Bytes follow the end of the checkpoint.',
    advice: 'fetch the checkpoint again, or load an older one',
  },
  CHKPT_FORMAT: {
    kind: 'damaged',
    when: 'A field has a value that the format does not allow.',
    advice: 'the producer has a bug or the file was forged; load an older checkpoint',
  },
  CHKPT_LIMIT: {
    kind: 'damaged',
    when: 'A length or count in the checkpoint exceeds its limit.',
    advice: 'the producer has a bug or the file was forged; load an older checkpoint',
  },
  CHKPT_ROOT_DIGEST: {
    kind: 'damaged',
    when: 'The root digest or a count of the END frame does not match what was read.',
    advice: 'do not use what was loaded; load an older checkpoint',
  },
  CHKPT_DECODE: {
    kind: 'damaged',
    when: 'A block whose digest matched does not decode to its declared size.',
    advice: 'the producer has a bug or the file was forged; load an older checkpoint',
  },
  CHKPT_MANIFEST: {
    kind: 'damaged',
    when: 'The manifest of a directory checkpoint is not valid, or a file does not match it.',
    advice: 'restore the directory from a copy, or load an older checkpoint',
  },
  CHKPT_SEAL: {
    kind: 'damaged',
    when: 'A record of an encrypted checkpoint, its header or its end is not what somebody with the key has written: damaged, cut, moved or forged. Nothing of it was decrypted into use.',
    advice: 'do not retry these bytes; load an older checkpoint or fetch this one again',
  },
  CHKPT_KEY: {
    kind: 'mismatch',
    when: 'The key of an encrypted checkpoint is missing or another one; or a key was given for a checkpoint that is not encrypted.',
    advice: 'give the key that it was saved with: --key-file FILE, or the option key',
  },
  CHKPT_VERSION: {
    kind: 'unsupported',
    when: 'The checkpoint has a format version or a critical frame type that this version cannot read, or skips a part that it does not know.',
    advice: 'use a newer chkpt',
  },

  // The checkpoint is sound, but not what the caller asked for.
  CHKPT_NO_CONTEXT: {
    kind: 'mismatch',
    when: 'The checkpoint has no context of this name.',
    advice: 'list the contexts with chkpt ls',
  },
  CHKPT_NO_TAG: {
    kind: 'mismatch',
    when: 'The context has no such tag.',
    advice: 'list the tags with chkpt ls',
  },
  CHKPT_TAG_LENGTH: {
    kind: 'mismatch',
    when: 'The value of a tag has another length than the one asked for.',
    advice: 'check the version of the state definition',
  },
  CHKPT_TAG_TYPE: {
    kind: 'mismatch',
    when: 'The value of a tag has another type than the one asked for.',
    advice: 'check the version of the state definition',
  },
  CHKPT_TAG_UNKNOWN: {
    kind: 'mismatch',
    when: 'A context holds a tag that the state definition does not know.',
    advice: 'load with the version that saved it',
  },
  CHKPT_VM_ID: {
    kind: 'mismatch',
    when: 'The checkpoint belongs to another virtual machine.',
    advice: "pass { ignore: ['id'] } to load it as a copy",
  },
  CHKPT_VM_REGIONS: {
    kind: 'mismatch',
    when: 'The memory regions of the checkpoint and of the machine differ.',
    advice: 'create the machine with the regions shown by chkpt info',
  },
  CHKPT_VM_CORES: {
    kind: 'mismatch',
    when: 'The number of cores differs.',
    advice: 'create the machine with as many cores as chkpt info shows',
  },
  CHKPT_VM_CPU: {
    kind: 'mismatch',
    when: 'CPU vendor or model differ.',
    advice: "load on the CPU shown by chkpt info, or pass { ignore: ['cpu'] }",
  },
  CHKPT_VM_DEVICES: {
    kind: 'mismatch',
    when: 'The devices of the checkpoint and of the machine differ.',
    advice: 'create the machine with the devices shown by chkpt info',
  },
  CHKPT_VM_PAGE_SIZE: {
    kind: 'mismatch',
    when: 'The page size differs.',
    advice: 'load on a machine with the same page size',
  },
  CHKPT_VM_MACHINE: {
    kind: 'mismatch',
    when: 'Machine type, version of the VMM, accelerator or memory backend differ.',
    advice: 'start the VMM as chkpt info shows it',
  },
  CHKPT_PARENT_MISSING: {
    kind: 'mismatch',
    when: 'The parent of an incremental checkpoint cannot be found or opened.',
    advice: 'tell where it is: --parent URL, or the option parents',
  },
  CHKPT_PARENT_FOREIGN: {
    kind: 'mismatch',
    when: 'A checkpoint found as the parent of an incremental one is another checkpoint.',
    advice: 'tell where the parent is: --parent URL, or the option parents',
  },
  CHKPT_PARENT_CYCLE: {
    kind: 'mismatch',
    when: 'A chain of checkpoints comes back to one of its members, or would.',
    advice: 'save the increment at another place; of a chain that is a cycle nothing can be loaded',
  },
  CHKPT_SKIPPED: {
    kind: 'mismatch',
    when: 'The load asks for a part that was skipped when the checkpoint was saved.',
    advice: 'pass the same skip option to load',
  },
  CHKPT_VM_FAILED: {
    kind: 'state',
    when: 'An earlier load failed half-way; the machine must not run.',
    advice: 'load a sound checkpoint into it, or create a new machine',
  },
  CHKPT_VM_RUNNING: {
    kind: 'state',
    when: 'The machine could not be paused, or runs while its state is replaced.',
    advice: 'pause the machine first',
  },

  CHKPT_CONTINUED: {
    kind: 'state',
    when: 'A checkpoint that is to be continued once was continued before, or was replaced while it was loaded.',
    advice: 'load the newest checkpoint, load this one as a clone, or force it if that machine is gone',
  },

  // QEMU.
  CHKPT_QMP_CLOSED: {
    kind: 'io',
    when: 'The QMP connection ended, or QEMU did, with a command under way.',
    advice: 'look at what QEMU has said on its standard error',
  },
  CHKPT_QMP_TIMEOUT: {
    kind: 'io',
    when: 'QEMU did not answer a QMP command in time.',
    advice: 'check that nobody else is connected to this QMP socket: QEMU serves one client at a time',
  },
  CHKPT_QMP_PROTOCOL: {
    kind: 'io',
    when: 'What is behind the QMP socket is no QMP server, or breaks the protocol.',
    advice: 'give the socket of -qmp unix:PATH,server=on,wait=off',
  },
  CHKPT_QMP_COMMAND: {
    kind: 'io',
    when: 'QEMU refused a QMP command.',
    advice: 'see what it said',
  },
  CHKPT_QEMU_MEMORY: {
    kind: 'unsupported',
    when: 'The RAM of this QEMU cannot be reached from outside.',
    advice:
      'start QEMU with -object memory-backend-memfd,id=ram,size=SIZE,share=on -machine memory-backend=ram -m SIZE',
  },
  CHKPT_QEMU_STATE: {
    kind: 'io',
    when: 'QEMU could not give its device state, or take one.',
    advice: 'see what QEMU has said on its standard error',
  },
  CHKPT_QEMU_NOT_WAITING: {
    kind: 'state',
    when: 'A checkpoint is to be loaded into a QEMU that does not wait for one.',
    advice: 'start QEMU with the arguments of the saved one and -incoming defer',
  },

  // Rules of the model.
  CHKPT_CONTEXT_OPEN: {
    kind: 'state',
    when: 'A context is opened, or the checkpoint committed, while another context is open.',
    advice: 'close the open context first',
  },
  CHKPT_CONTEXT_REOPENED: {
    kind: 'state',
    when: 'A context is opened a second time.',
    advice: 'save all tags of a context while it is open',
  },
  CHKPT_CONTEXT_CLOSED: {
    kind: 'state',
    when: 'A context is used after it was closed.',
    advice: 'keep the context open until all its tags are saved or loaded',
  },
  CHKPT_TAG_DUPLICATE: {
    kind: 'state',
    when: 'A tag is saved twice in one context.',
    advice: 'use each tag once',
  },
  CHKPT_NAME: {
    kind: 'state',
    when: 'A context name or tag breaks the rules: 1 to 255 bytes, no slash, no control character, not . or ..',
    advice: 'choose another name',
  },
  CHKPT_VALUE_RANGE: {
    kind: 'state',
    when: 'A value to be saved does not fit its type, or the values exceed the limits of the format.',
    advice: 'check the value against the state definition',
  },
  CHKPT_CLOSED: {
    kind: 'state',
    when: 'A checkpoint, store or memory is used after it was closed.',
    advice: 'open it again',
  },
  CHKPT_MODE: {
    kind: 'state',
    when: 'A checkpoint opened for save is loaded from, or the other way round.',
    advice: 'open it in the right mode',
  },

  // Stores and files.
  CHKPT_NOT_FOUND: {
    kind: 'io',
    when: 'There is no checkpoint at this URL, or no such file.',
    advice: 'check the URL',
  },
  CHKPT_STORE_UNKNOWN: {
    kind: 'usage',
    when: 'The URL names a store that nobody registered.',
    advice: 'use one of the registered schemes, or registerStore() first',
  },
  CHKPT_STORE_URL: {
    kind: 'usage',
    when: 'The URL is not valid for its store.',
    advice: 'see docs/stores.md for the form of the URL',
  },
  CHKPT_NO_SPACE: {
    kind: 'io',
    when: 'The device is full or a quota is reached.',
    advice: 'free some space and save again; the previous checkpoint is untouched',
  },
  CHKPT_PERMISSION: {
    kind: 'io',
    when: 'The system refuses access.',
    advice: 'check owner and mode of the path',
  },
  CHKPT_IO: {
    kind: 'io',
    when: 'A read or write failed.',
    advice: 'see the cause; the previous checkpoint is untouched',
  },
  CHKPT_DURABILITY: {
    kind: 'io',
    when: 'A flush to stable storage failed; this save does not count.',
    advice: 'save again to a healthy device; the previous checkpoint is untouched',
  },
  CHKPT_REPLACED: {
    kind: 'damaged',
    when: 'An object of the checkpoint was replaced or removed while it was read.',
    advice: 'nothing of it can be used; load again what is there now',
  },
  CHKPT_STORE_FAILED: {
    kind: 'io',
    when: 'A third-party store failed.',
    advice: 'see the cause',
  },
  CHKPT_MEMORY_SHORT: {
    kind: 'io',
    when: 'A memory file is shorter than its region.',
    advice: 'give the whole RAM image, or a smaller region',
  },
  CHKPT_MEMORY_DETACHED: {
    kind: 'state',
    when: 'Attached memory was detached or shrank.',
    advice: 'attach the current buffer again',
  },
  CHKPT_NO_MEMORY: {
    kind: 'io',
    when: 'The system has not enough memory, or refuses the kind of memory asked for.',
    advice: 'use a smaller machine or another backing',
  },
  CHKPT_SNAPSHOT_LOST: {
    kind: 'state',
    when: 'During a live save the guest overwrote more pages than may be set aside, or gave pages back before they were saved.',
    advice: 'the guest runs on; save again, with a higher maxSideBytes or with copyMemory',
  },
  // Connections to other processes and machines.
  CHKPT_INSECURE: {
    kind: 'usage',
    when: 'A connection that leaves this machine was asked for without TLS, without a one-time key, and not as insecure.',
    advice:
      'use tls: with certificates, or a one-time key; insecure is for networks that nobody else reaches',
  },
  CHKPT_LINK_LOST: {
    kind: 'io',
    when: 'A connection could not be made, or ended before everything was said.',
    advice: 'check that the other side runs and can be reached, and look at what it says',
  },
  CHKPT_TIMEOUT: {
    kind: 'io',
    when: 'The other side of a connection is silent, or slower than the slowest that is allowed.',
    advice: 'check the network and the other side',
  },
  CHKPT_UNAUTHENTICATED: {
    kind: 'io',
    when: 'The other side of a connection could not prove who it is.',
    advice: 'check certificates, CA and names of both sides, or make a new one-time key',
  },
  CHKPT_PEER_REFUSED: {
    kind: 'io',
    when: 'The other side of a connection refuses: it does not trust this one, is busy, or failed itself.',
    advice: 'see the reason it gives; its own output has more',
  },
  CHKPT_PEER_PROTOCOL: {
    kind: 'io',
    when: 'What is at the other end of a connection is no chkpt, or breaks the protocol.',
    advice: 'check the address, and that both sides have versions that fit',
  },
  CHKPT_IN_DOUBT: {
    kind: 'doubt',
    when: 'A migration was committed, and the destination has not said whether the guest runs there.',
    advice: 'do not start the guest here; wait for the link, or fence the destination first',
  },
  CHKPT_NO_CONVERGENCE: {
    kind: 'state',
    when: 'The guest writes faster than its memory can be sent, and its downtime would be longer than allowed.',
    advice: 'the guest runs on; allow a longer downtime or more bandwidth, throttle it, or use post-copy',
  },
  CHKPT_VM_MOVED: {
    kind: 'state',
    when: 'The guest of this machine runs on another host.',
    advice: 'close this machine',
  },
  CHKPT_VM_LOST: {
    kind: 'state',
    when: 'The guest of a migration ended with the process that was sending it, and the destination does not have it.',
    advice: 'load its newest checkpoint, or start it anew',
  },
  CHKPT_JOURNAL_IN_USE: {
    kind: 'state',
    when: 'A process that is alive has the journal of this migration open.',
    advice: 'leave it to that process, or end it first',
  },
  CHKPT_UNACKNOWLEDGED: {
    kind: 'doubt',
    when: 'The connection was lost after everything was sent, before the receiver said that it has kept the checkpoint.',
    advice: 'look at the receiver with chkpt info: the checkpoint may be there or not',
  },
  CHKPT_NO_NATIVE: {
    kind: 'unsupported',
    when: 'The native addon could not be loaded; info, ls, cat and verify work without it.',
    advice: 'build it with npm run build:native',
  },
  CHKPT_UNSUPPORTED: {
    kind: 'unsupported',
    when: 'The system or the store cannot do this.',
    advice: 'see docs',
  },
  CHKPT_USAGE: {
    kind: 'usage',
    when: 'The command line is not valid.',
    advice: 'see chkpt --help',
  },
  CHKPT_ABORTED: {
    kind: 'aborted',
    when: 'The caller cancelled.',
    advice: 'nothing was published',
  },
  CHKPT_INTERNAL: {
    kind: 'io',
    when: 'A bug of chkpt.',
    advice: 'please report it with this message',
  },
} as const;

errorTable satisfies Readonly<Record<string, ErrorEntry>>;

/** Every error code of chkpt. */
export type ErrorCode = keyof typeof errorTable;
