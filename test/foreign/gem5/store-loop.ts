/**
 * How gem5 reads a memory store (`PhysicalMemory::unserializeStore`, docs/gem5.md): 16 KiB at a time with zlib's own `gzread`, until the size
 * of the range or the end of the stream; whole words of 8 bytes, of which those that are zero are left; an error at `gzclose` is fatal.
 */
import { spawnSync } from 'node:child_process';

/** SHA-256 of the memory, hexadecimal; or why gem5 would have ended. */
export type LoopOutcome = { readonly memory: string } | { readonly fatal: string };

export interface DamagedStore {
  readonly path: string;
  readonly rangeBytes: number;
  /** One bit of the file is flipped before it is read. */
  readonly flip?: { readonly at: number; readonly bit: number };
}

const script = `
import ctypes, ctypes.util, hashlib, json, os, sys, tempfile
zlib = ctypes.CDLL(ctypes.util.find_library('z') or 'libz.so.1')
zlib.gzopen.restype = ctypes.c_void_p
zlib.gzopen.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
zlib.gzread.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint]
zlib.gzclose_r.argtypes = [ctypes.c_void_p]
def load(path, size):
    file = zlib.gzopen(path.encode(), b'rb')
    if not file: return {'fatal': 'open'}
    memory = bytearray(size)
    chunk = ctypes.create_string_buffer(16384)
    at = 0
    while at < size:
        got = zlib.gzread(file, chunk, 16384)
        if got == 0: break
        if got % 8 != 0: return {'fatal': 'words'}
        data = chunk.raw[:got]
        for word in range(0, got, 8):
            if data[word:word + 8] != bytes(8) and at + word < size:
                memory[at + word:at + word + 8] = data[word:word + 8]
        at += got
    if zlib.gzclose_r(file) != 0: return {'fatal': 'close'}
    return {'memory': hashlib.sha256(memory).hexdigest()}
outcomes = []
with tempfile.TemporaryDirectory() as folder:
    for store in json.load(sys.stdin):
        path = store['path']
        if 'flip' in store:
            data = bytearray(open(path, 'rb').read())
            data[store['flip']['at']] ^= 1 << store['flip']['bit']
            path = os.path.join(folder, 'damaged')
            open(path, 'wb').write(data)
        outcomes.append(load(path, store['rangeBytes']))
json.dump(outcomes, sys.stdout)
`;

/** Of each store; all in one process. */
export function readStoresAsGem5(stores: readonly DamagedStore[]): LoopOutcome[] {
  const { stdout, status, stderr } = spawnSync('python3', ['-c', script], {
    input: JSON.stringify(stores),
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
  });
  if (status !== 0) throw new Error(`the read loop of gem5 failed: ${stderr}`);
  return JSON.parse(stdout) as LoopOutcome[];
}
