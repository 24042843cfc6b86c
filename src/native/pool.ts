/** Packs of a pool: part of the surface that addon.ts types. */

/** What a call of a `NativePoolWriter` has written. */
export interface NativePoolWritten {
  /** Bytes to the file of the context. */
  readonly own: number;
  /** Bytes to the pack of the save. */
  readonly pack: number;
  /** The next part of the context's map. Owned by the receiver. */
  readonly map: Uint8Array;
}

/** Calls come one at a time. */
export interface NativePoolWriter {
  /** Once, before anything else. Rejects when the pool cannot be looked into. */
  load(): Promise<void>;
  /** New objects go into this file of the save's folder. */
  beginPack(name: string): void;
  /** The next bytes of a context. No piece may be transferred before it resolves. */
  write(
    pieces: readonly Uint8Array[],
    ownDescriptor: number,
    ownPosition: number,
    packDescriptor: number,
    packPosition: number,
  ): Promise<NativePoolWritten>;
  endContext(ownDescriptor: number, ownPosition: number): Promise<NativePoolWritten>;
  /** Resolves to how many bytes were written behind the objects. */
  endPack(packDescriptor: number, packPosition: number): Promise<number>;
  /** The packs that maps name, by number. Others lose their name in the save's folder. */
  takePacks(): { readonly name: string; readonly bytes: number }[];
  /** Bytes of contexts that were found in packs of other saves. */
  sharedBytes(): number;
  /** Gives its descriptors back, once no call is under way. Nothing is called afterwards. */
  close(): void;
}

export interface NativePoolFile {
  readonly descriptor: number;
  readonly bytes: number;
}

export interface NativePooledContext {
  readonly bytes: number;
  readonly own: NativePoolFile;
  readonly packs: readonly NativePoolFile[];
  readonly map: Uint8Array;
}

/** The bytes of one context. Keeps duplicates of the descriptors. */
export interface NativePooledSource {
  /** Exactly so many bytes, at most 64 MiB; the range lies in the context. */
  read(offset: number, byteCount: number): Promise<Uint8Array>;
  /** Nothing is read afterwards; loads that use it keep the descriptors until they are done. */
  close(): void;
}
