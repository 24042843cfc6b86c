/** Completions for bash, zsh and fish, made from the command table. */
import {
  type CommandSpec,
  commands,
  commonOptions,
  type OptionSpec,
  type Shell,
  shells,
} from './command-table.ts';

/** The script that `chkpt completion SHELL` prints; its first line says how to install it. */
export function completionScript(shell: Shell): string {
  switch (shell) {
    case 'bash':
      return bashScript();
    case 'zsh':
      return zshScript();
    case 'fish':
      return fishScript();
    default:
      return shell satisfies never;
  }
}

const commandWords = [...commands.map(({ name }) => name), 'help', 'completion'];

function optionsOf(command: CommandSpec): OptionSpec[] {
  return [...command.options, ...commonOptions];
}

function bashScript(): string {
  const flags = commands.map(
    (command) =>
      `    ${command.name}) words='${optionsOf(command)
        .map(({ name }) => `--${name}`)
        .join(' ')}' ;;`,
  );
  const choices = uniqueOptions()
    .filter((option) => option.choices !== undefined)
    .map(({ name, choices }) => `    --${name}) words='${choices?.join(' ')}'; choose=1 ;;`);
  return `# bash completion of chkpt: source <(chkpt completion bash)
_chkpt() {
  local current=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD-1]} words='' choose=''
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W '${commandWords.join(' ')} --help --version' -- "$current"))
    return
  fi
  case $previous in
${choices.join('\n')}
    help) words='${commands.map(({ name }) => name).join(' ')}'; choose=1 ;;
    completion) words='${shells.join(' ')}'; choose=1 ;;
  esac
  if [ -n "$choose" ]; then
    COMPREPLY=($(compgen -W "$words" -- "$current"))
    return
  fi
  case \${COMP_WORDS[1]} in
${flags.join('\n')}
  esac
  case $current in
    -*) COMPREPLY=($(compgen -W "$words" -- "$current")) ;;
    *) COMPREPLY=($(compgen -f -- "$current")) ;;
  esac
}
complete -o filenames -F _chkpt chkpt
`;
}

function zshScript(): string {
  const cases = commands.map((command) => {
    const options = optionsOf(command).map((option) => `        ${zshOption(option)} \\`);
    return `      ${command.name})\n      _arguments \\\n${options.join('\n')}\n        '*:argument:_files' ;;`;
  });
  return `#compdef chkpt
# zsh completion of chkpt: chkpt completion zsh > "\${fpath[1]}/_chkpt"
_chkpt() {
  local -a commands
  commands=(
${commands.map(({ name, summary }) => `    ${zshQuote(`${name}:${summary}`)}`).join('\n')}
    'help:help on a command'
    'completion:completions for a shell'
  )
  if (( CURRENT == 2 )); then
    _describe 'command' commands
    return
  fi
  local command=$words[2]
  shift words
  (( CURRENT-- ))
  case $command in
${cases.join('\n')}
      help)
      _values 'command' ${commands.map(({ name }) => name).join(' ')} ;;
      completion)
      _values 'shell' ${shells.join(' ')} ;;
  esac
}
# As an autoloaded function, or sourced.
if [ "\${funcstack[1]:-}" = _chkpt ]; then _chkpt "$@"; else compdef _chkpt chkpt; fi
`;
}

function zshOption({ name, value, choices, isFile, isRepeatable, summary }: OptionSpec): string {
  const text = summary.replace(/[[\]:]/g, '\\$&');
  const action = choices === undefined ? (isFile === true ? '_files' : ' ') : `(${choices.join(' ')})`;
  const argument = value === undefined ? '' : `:${value.replace(/[[\]:]/g, '\\$&')}:${action}`;
  return zshQuote(`${isRepeatable === true ? '*' : ''}--${name}[${text}]${argument}`);
}

function zshQuote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function fishScript(): string {
  const none = `not __fish_seen_subcommand_from ${commandWords.join(' ')}`;
  const lines = commands.flatMap((command) => [
    `complete -c chkpt -f -n '${none}' -a ${command.name} -d ${fishQuote(command.summary)}`,
    ...optionsOf(command).map((option) => fishOption(command, option)),
  ]);
  return `# fish completion of chkpt: chkpt completion fish > ~/.config/fish/completions/chkpt.fish
${lines.join('\n')}
complete -c chkpt -f -n '${none}' -a help -d 'help on a command'
complete -c chkpt -f -n '${none}' -a completion -d 'completions for a shell'
complete -c chkpt -f -n '__fish_seen_subcommand_from help' -a '${commands.map(({ name }) => name).join(' ')}'
complete -c chkpt -f -n '__fish_seen_subcommand_from completion' -a '${shells.join(' ')}'
`;
}

function fishOption(
  command: CommandSpec,
  { name, short, value, choices, isFile, summary }: OptionSpec,
): string {
  const parts = [`complete -c chkpt -n '__fish_seen_subcommand_from ${command.name}' -l ${name}`];
  if (short !== undefined) parts.push(`-s ${short}`);
  if (value !== undefined) parts.push(isFile === true ? '-r -F' : '-x');
  if (choices !== undefined) parts.push(`-a '${choices.join(' ')}'`);
  return [...parts, `-d ${fishQuote(summary)}`].join(' ');
}

function fishQuote(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
}

function uniqueOptions(): OptionSpec[] {
  const all = [...commands.flatMap(({ options }) => options), ...commonOptions];
  return all.filter((option, index) => all.findIndex(({ name }) => name === option.name) === index);
}
