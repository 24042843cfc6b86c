#!/usr/bin/env node
/** The command line `chkpt`. See docs/cli.md. */
import { runCommandLine } from './run.ts';

process.exitCode = await runCommandLine(process.argv.slice(2));
