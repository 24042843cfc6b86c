/**
 * One command line, split into options and operands by the rules of its command. Everything that is wrong with it is
 * `CHKPT_USAGE`, with a hint; nothing is opened here.
 */
import { parseArgs } from 'node:util';
import { type CommandSpec, commonOptions, type OptionSpec } from './command-table.ts';
import { suggestion, usageError } from './usage-error.ts';

/** Options and operands as they were given. */
export class ParsedLine {
  readonly operands: readonly string[];
  readonly #values: ReadonlyMap<string, readonly string[]>;

  constructor(operands: readonly string[], values: ReadonlyMap<string, readonly string[]>) {
    this.operands = operands;
    this.#values = values;
  }

  /** True when the option was given. */
  has(name: string): boolean {
    return this.#values.has(name);
  }

  /** The value of an option that counts once: the last one given. */
  last(name: string): string | undefined {
    return this.#values.get(name)?.at(-1);
  }

  /** All values, in the order given. */
  all(name: string): readonly string[] {
    return this.#values.get(name) ?? [];
  }

  /** An operand that `parseLine` has made sure of. */
  operand(index: number): string {
    return this.operands[index] ?? '';
  }
}

/** Splits the words behind the name of the command. With `--help` anything else may be missing. */
export function parseLine(command: CommandSpec, words: readonly string[]): ParsedLine {
  const specs = [...command.options, ...commonOptions];
  const { tokens } = parseArgs({
    args: [...words],
    options: Object.fromEntries(specs.map((spec) => [spec.name, parserOption(spec)])),
    strict: false,
    allowPositionals: true,
    tokens: true,
  });
  const operands: string[] = [];
  const values = new Map<string, string[]>();
  for (const token of tokens) {
    if (token.kind === 'positional') operands.push(token.value);
    if (token.kind !== 'option') continue;
    const spec = specs.find(({ name }) => name === token.name);
    if (spec === undefined) throw unknownOption(token.rawName, command, specs);
    const value = checkValue(spec, token);
    values.set(spec.name, [...(values.get(spec.name) ?? []), value]);
  }
  if (!values.has('help')) checkOperands(command, operands);
  return new ParsedLine(operands, values);
}

function parserOption({ value, short }: OptionSpec): { type: 'string' | 'boolean'; short?: string } {
  return { type: value === undefined ? 'boolean' : 'string', ...(short === undefined ? {} : { short }) };
}

interface OptionToken {
  readonly rawName: string;
  readonly value: string | undefined;
  readonly inlineValue: boolean | undefined;
}

function checkValue(spec: OptionSpec, { rawName, value, inlineValue }: OptionToken): string {
  if (spec.value === undefined) {
    if (value !== undefined) throw usageError(`${rawName} takes no value`);
    return '';
  }
  const isNextOption = value?.startsWith('-') === true && value !== '-' && inlineValue !== true;
  if (value === undefined || value === '' || isNextOption) {
    const hint = isNextOption ? `; write --${spec.name}=${value} if that is its value` : '';
    throw usageError(`${rawName} needs a value: ${rawName} ${spec.value}${hint}`);
  }
  if (spec.choices !== undefined && !spec.choices.includes(value)) {
    const choices = spec.choices.join(', ');
    throw usageError(`${rawName} ${value}: not one of ${choices}${suggestion(value, spec.choices)}`);
  }
  return value;
}

function unknownOption(rawName: string, command: CommandSpec, specs: readonly OptionSpec[]): Error {
  const names = specs.map(({ name }) => `--${name}`);
  return usageError(`chkpt ${command.name} has no option ${rawName}${suggestion(rawName, names)}`);
}

function checkOperands(
  { name, operands, optionalOperands = 0, repeatsLast, usages }: CommandSpec,
  given: readonly string[],
): void {
  const missing = operands.slice(0, operands.length - optionalOperands)[given.length];
  if (missing !== undefined) throw usageError(`${missing} is missing: chkpt ${name} ${usages[0]}`);
  const surplus = given[operands.length];
  if (surplus !== undefined && repeatsLast !== true)
    throw usageError(`chkpt ${name} takes no further argument: ${surplus}`);
}
