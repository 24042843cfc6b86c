/** Help texts, made from the command table. */
import { type CommandSpec, commands, commonOptions, type OptionSpec, shells } from './command-table.ts';

const columns = 100;

/** `chkpt --help`. */
export function generalHelp(): string {
  const rows = commands.map(({ name, summary }) => [name, summary] as const);
  return [
    'chkpt: checkpoints of virtual machines',
    '',
    'Usage: chkpt COMMAND [OPTION]… [ARGUMENT]…',
    '',
    'Commands:',
    ...table([
      ...rows,
      ['help', 'help on a command: chkpt help save'],
      ['completion', `completions for a shell: chkpt completion ${shells.join('|')}`],
    ]),
    '',
    'STORE says where the checkpoint is: file:PATH (one file; file: may be left out), dir:PATH (a directory) or',
    'dir+pool:PATH[?pool=FOLDER] (a directory that shares content with others through a pool, default chkpt-pool beside it).',
    '',
    'Options of every command:',
    ...optionRows([...commonOptions, { name: 'version', summary: 'name and version' }]),
    '',
    'Exit codes: 0 done, 1 the operation failed, 2 usage, 3 the checkpoint is damaged, 4 in doubt,',
    '129, 130, 143 stopped by SIGHUP, SIGINT, SIGTERM. An error is one line on standard error.',
    '',
  ].join('\n');
}

/** `chkpt COMMAND --help`. */
export function commandHelp(command: CommandSpec): string {
  const { name, summary, usages, options, common, notes, examples } = command;
  const mattering = commonOptions.filter((option) => common.includes(option.name) || option.name === 'help');
  return [
    `chkpt ${name}: ${summary}`,
    '',
    ...usages.map((usage, index) => `${index === 0 ? 'Usage:' : '      '} chkpt ${name} ${usage}`),
    '',
    'Options:',
    ...optionRows([...options, ...mattering]),
    '',
    ...notes.flatMap((note) => wrap(note, columns)),
    '',
    examples.length === 1 ? 'Example:' : 'Examples:',
    ...table(examples),
    '',
  ].join('\n');
}

function optionRows(options: readonly OptionSpec[]): string[] {
  return table(
    options.map(({ name, short, value, isRepeatable, summary }) => {
      const flag = `${short === undefined ? '' : `-${short}, `}--${name}${value === undefined ? '' : ` ${value}`}`;
      return [flag, isRepeatable === true ? `${summary} (repeatable)` : summary] as const;
    }),
  );
}

/** Two columns, the second one wrapped. */
function table(rows: readonly (readonly [string, string])[]): string[] {
  const width = Math.max(...rows.map(([left]) => left.length));
  return rows.flatMap(([left, right]) => {
    const lines = wrap(right, Math.max(columns - width - 4, 30));
    return lines.map((line, index) => `  ${(index === 0 ? left : '').padEnd(width)}  ${line}`);
  });
}

function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line);
      line = '';
    }
    line = line === '' ? word : `${line} ${word}`;
  }
  return [...lines, line];
}
