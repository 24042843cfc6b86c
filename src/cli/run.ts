/**
 * From the words of a command line to an exit code. Commands are loaded when they are asked for: `chkpt --version` loads none.
 */
import { type CommandSpec, commands, laterCommands, type Shell, shells } from './command-table.ts';
import { Interrupt } from './interrupt.ts';
import { Output } from './output.ts';
import { type Failure, failureOf } from './report-error.ts';
import { suggestion, usageError } from './usage-error.ts';

/** Runs one command line; resolves to the exit code of the process. Never rejects. */
export async function runCommandLine(words: readonly string[]): Promise<number> {
  const output = new Output();
  const command = commands.find(({ name }) => name === words[0]);
  const interrupt = command?.isInterruptible === true ? new Interrupt() : undefined;
  const tell = ({ exitCode, line }: Failure): number => {
    if (line !== undefined) output.note(line);
    return exitCode;
  };
  try {
    if (command === undefined) await runPlainWord(words, output);
    else await runCommand(command, words.slice(1), output, interrupt?.signal ?? new AbortController().signal);
    return 0;
  } catch (error) {
    return tell(failureOf(error, command && modeOf(command, words), interrupt));
  } finally {
    interrupt?.dispose();
  }
}

/** What the command works on decides what can be done about a failure, also about one of reading the command line. */
function modeOf({ name }: CommandSpec, words: readonly string[]): string {
  const isQemu = words.some((word) => word === '--qemu' || word.startsWith('--qemu='));
  return isQemu ? `${name} --qemu` : name;
}

async function runCommand(
  command: CommandSpec,
  words: readonly string[],
  output: Output,
  signal: AbortSignal,
): Promise<void> {
  const { parseLine } = await import('./parse-line.ts');
  const line = parseLine(command, words);
  if (line.has('help')) {
    const { commandHelp } = await import('./help.ts');
    await output.write(commandHelp(command));
    return;
  }
  const { commonOptionsOf } = await import('./common-options.ts');
  const common = commonOptionsOf(line);
  const module = await command.load();
  await module.run({ line, common, output, signal });
}

/** Everything that is no command with a store. */
async function runPlainWord(words: readonly string[], output: Output): Promise<void> {
  const [word, ...rest] = words;
  switch (word) {
    case '--version': {
      const { producer } = await import('../checkpoint/producer.ts');
      return await output.write(`${producer()}\n`);
    }
    case '--help':
    case '-h':
    case 'help':
      return await output.write(await helpOn(rest));
    case 'completion':
      return await output.write(await completionFor(rest));
    case undefined:
      throw usageError(`a command is missing: ${commands.map(({ name }) => name).join(', ')}`);
    default:
      throw unknownCommand(word);
  }
}

async function helpOn(words: readonly string[]): Promise<string> {
  const { commandHelp, generalHelp } = await import('./help.ts');
  const [word] = words;
  if (word === undefined || word === 'help' || word === 'completion') return generalHelp();
  const command = commands.find(({ name }) => name === word);
  if (command === undefined) throw unknownCommand(word);
  return commandHelp(command);
}

async function completionFor(words: readonly string[]): Promise<string> {
  const shell = shells.find((name) => name === words[0]);
  if (shell === undefined || words.length > 1) {
    throw usageError(`chkpt completion takes one of ${shells.join(', ')}`);
  }
  const { completionScript } = await import('./completion.ts');
  return completionScript(shell satisfies Shell);
}

function unknownCommand(word: string): Error {
  if (laterCommands.includes(word)) return usageError(`chkpt ${word} is not available in this version`);
  const names = [...commands.map(({ name }) => name), 'help', 'completion'];
  if (word.startsWith('-')) return usageError(`unknown option ${word}: the command comes first`);
  return usageError(`unknown command ${word}${suggestion(word, names)}`);
}
