/** `chkpt load`: the RAM images and values of a checkpoint into files. */
import type { Invocation } from '../invocation.ts';
import { type LoadTargets, loadImage, type ImageLoaded } from '../load-image.ts';
import { parseMemoryArguments } from '../memory-argument.ts';
import { Output } from '../output.ts';
import { createProgress } from '../progress.ts';
import { skipOf } from '../skip-argument.ts';
import { parseStateArguments, standardStream } from '../state-argument.ts';
import { refuseStoreFile, storeOf } from '../store-argument.ts';
