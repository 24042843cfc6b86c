/** Errors as the contract wants them: one line and an exit code. */
import { CheckpointError, type ErrorKind } from '../errors/index.ts';
import type { Interrupt } from './interrupt.ts';
import { OutputClosed } from './output.ts';
import { printable } from './printable.ts';

/** A failure, ready to be told. */
export interface Failure {
  readonly exitCode: number;
  /** One line; absent when there is nothing to say. */
  readonly line?: string;
}

const exitCodes: Readonly<Record<ErrorKind, number>> = {
  damaged: 3,
  usage: 2,
  doubt: 4,
  mismatch: 1,
  state: 1,
  io: 1,
  unsupported: 1,
  aborted: 1,
};

/** The advice of the table is for users of the API; here the command is known, and what it does not touch. */
const adviceOfCommand: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  '': {
    CHKPT_STORE_UNKNOWN: 'use file:PATH, dir:PATH or dir+pool:PATH',
    CHKPT_KEY: 'give the key it was saved with: --key-file FILE, or none if it is not encrypted',
    CHKPT_UNSUPPORTED: 'see docs/cli.md',
    CHKPT_PARENT_MISSING: 'tell where it is with --parent URL',
    CHKPT_PARENT_FOREIGN: 'tell where the parent is with --parent URL',
  },
  save: {
    CHKPT_MEMORY_SHORT: 'give a whole RAM image, and leave it alone while it is saved',
    CHKPT_NOT_FOUND: 'check STORE, --parent and the files of --memory and --state',
    CHKPT_VM_REGIONS: 'save the RAM images that the parent has, at the same bases, or leave out --parent',
  },
  load: {
    CHKPT_NOT_FOUND: 'check STORE, --parent and the folders of the output files',
    CHKPT_NO_SPACE: 'free some space and load again; no output file was changed',
    CHKPT_IO: 'no output file was changed',
    CHKPT_DURABILITY: 'load again to a healthy device; no output file was changed',
    CHKPT_SKIPPED: 'add the same --skip to load',
    CHKPT_ABORTED: 'no output file was changed',
  },
  'save --qemu': {
    CHKPT_NOT_FOUND: 'check STORE, --parent and the path of the QMP socket',
  },
  'load --qemu': {
    CHKPT_NOT_FOUND: 'check STORE, --parent and the path of the QMP socket',
    CHKPT_VM_RUNNING: 'give the socket of a QEMU that was started with -incoming defer',
    CHKPT_SKIPPED: 'add the same --skip to load',
    CHKPT_ABORTED: 'the QEMU holds part of the checkpoint: end it',
    CHKPT_IO: 'end the QEMU if it was being loaded into',
  },
  receive: {
    CHKPT_NOT_FOUND: 'check the folder of STORE, and the files of the options',
    CHKPT_ABORTED: 'nothing was kept of what had not ended',
    CHKPT_UNAUTHENTICATED:
      'check certificates, --tls-ca and --tls-peer of both sides, or make a new one-time key',
  },
  resume: {
    CHKPT_ABORTED: 'the migration stays as it is; run it again',
    CHKPT_NOT_FOUND: 'see chkpt migrations, and --journal',
  },
  migrations: {
    CHKPT_NOT_FOUND: 'see chkpt migrations, and --journal',
  },
  verify: {
    CHKPT_ABORTED: 'the checkpoint was not verified',
    CHKPT_PARENT_MISSING: 'tell where it is with --parent URL, or verify without parents: --alone',
  },
};

/**
 * `command` is the one that failed, when it is known. With `CHKPT_DEBUG=1` in the environment the line is followed by the
 * stack and the causes.
 */
export function failureOf(error: unknown, command: string | undefined, interrupt?: Interrupt): Failure {
  if (error instanceof OutputClosed) return { exitCode: 0 };
  const known = error instanceof CheckpointError ? error : internalError(error);
  const { received, exitCode: interruptedCode } = interrupt ?? {};
  // That something may be kept elsewhere matters more than that the command was stopped.
  const exitCode = known.kind === 'doubt' ? exitCodes.doubt : (interruptedCode ?? exitCodes[known.kind]);
  const isStop = known.code === 'CHKPT_ABORTED' && received !== undefined;
  const what = isStop ? `stopped by ${received}${placeOf(known)}` : known.message;
  const line = `chkpt: ${known.code}: ${printable(what)}; ${adviceOf(known, command)}`;
  const debug = process.env['CHKPT_DEBUG'] === '1' ? `\n${stackOf(error)}` : '';
  return { exitCode, line: `${line}${debug}` };
}

function adviceOf(error: CheckpointError, command: string | undefined): string {
  if (error.code === 'CHKPT_USAGE')
    return `see chkpt ${command === undefined ? '' : `${command.replace(' --qemu', '')} `}--help`;
  return adviceOfCommand[command ?? '']?.[error.code] ?? adviceOfCommand['']?.[error.code] ?? error.advice;
}

function internalError(error: unknown): CheckpointError {
  const what = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  return new CheckpointError('CHKPT_INTERNAL', what, { cause: error });
}

function placeOf({ details: { store } }: CheckpointError): string {
  return store === undefined ? '' : ` (store ${store})`;
}

function stackOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const cause = error.cause === undefined ? '' : `\ncaused by: ${stackOf(error.cause)}`;
  return `${error.stack ?? error.message}${cause}`;
}
