/**
 * Loads a checkpoint into files: RAM images, sparse, and the bytes of named values.
 *
 * The stream is read once, forward. Memory goes to temporaries as it comes; no file gets its name, and standard output gets
 * nothing, before the end of the stream proved that the whole checkpoint is sound.
 */
import { encodeSkip } from '../checkpoint/virtual-machine.ts';
