#!/usr/bin/env node
/** The command line `chkpt`. See docs/cli.md. */
import { failureOf } from './report-error.ts';
import { runCommandLine } from './run.ts';

// A failed write would end the process, and there is nobody left to tell.
process.stderr.on('error', () => undefined);

// A bug of ours outside the command that runs. It, too, is one line and an exit code.
process.once('uncaughtException', (error) => {
  const { exitCode, line } = failureOf(error, undefined);
  process.stderr.write(`${line}\n`);
  process.exit(exitCode);
});

// The AWS SDK would tell users of Node.js 20 about its own plans, in ten lines.
process.env['AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED'] ??= 'true';

process.exitCode = await runCommandLine(process.argv.slice(2));
