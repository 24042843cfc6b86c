/** Typed arrays that have lost their memory: they read as empty. */

type ArrayClass<T> = new (buffer: ArrayBuffer, byteOffset?: number, length?: number) => T;

/** The buffer went to another owner. */
export function detached<T>(Class: ArrayClass<T>): T {
  const buffer = new ArrayBuffer(64);
  const array = new Class(buffer);
  structuredClone(buffer, { transfer: [buffer] });
  return array;
}

/** The buffer shrank below the array, which has a length of its own or reaches to the end of the buffer. */
export function outOfBounds<T>(Class: ArrayClass<T>, length?: number): T {
  // TypeScript's library does not know resizable buffers yet.
  const Resizable = ArrayBuffer as unknown as new (bytes: number, options: object) => ArrayBuffer;
  const buffer = new Resizable(64, { maxByteLength: 128 });
  const array = new Class(buffer, 32, length);
  (buffer as unknown as { resize(bytes: number): void }).resize(16);
  return array;
}
