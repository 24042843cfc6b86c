/**
 * The two programs that read an m5.cpt, as oracles: gem5's own loader, re-implemented from its rules (docs/gem5.md), and Python's
 * configparser with the options of gem5's upgrader.
 */
import { spawnSync } from 'node:child_process';

/** Section → key → value; `undefined` when the consumer refuses the file. */
export type Reading = Record<string, Record<string, string>> | undefined;

/** As gem5 reads it. */
export function readAsGem5(text: string): Reading {
  const sections = new Map<string, Map<string, string>>();
  let section: Map<string, string> | undefined;
  const lines = text.split('\n');
  if (lines.at(-1) === '') lines.pop();
  for (const raw of lines) {
    const line = raw.replace(/^[ \t\r\v\f]+/, '').replace(/ +$/, '');
    if (line === '') continue;
    if (line.startsWith('[') && line.endsWith(']')) {
      const name = line.slice(1, -1).replace(/^ +| +$/g, '');
      section = sections.get(name) ?? new Map();
      sections.set(name, section);
    } else if (section !== undefined && !takeEntry(section, line)) {
      return undefined;
    }
  }
  return Object.fromEntries([...sections].map(([name, entries]) => [name, Object.fromEntries(entries)]));
}

function takeEntry(section: Map<string, string>, line: string): boolean {
  const equals = line.indexOf('=');
  if (equals < 0) return false;
  const appends = line[equals - 1] === '+';
  const key = line.slice(0, appends ? equals - 1 : equals).replace(/^ +| +$/g, '');
  const value = line.slice(equals + 1).replace(/^ +| +$/g, '');
  const before = section.get(key);
  section.set(key, appends && before !== undefined ? `${before} ${value}` : value);
  return true;
}

const script = `
import configparser, json, sys
def read(text):
    cp = configparser.ConfigParser()
    cp.optionxform = str
    try:
        cp.read_string(text)
        if cp.defaults(): return None
        return {s: {k: cp.get(s, k, raw=True) for k in cp.options(s)} for s in cp.sections()}
    except Exception:
        return None
json.dump([read(text) for text in json.load(sys.stdin)], sys.stdout)
`;

/** As Python's configparser reads each of them; all in one process. */
export function readAsConfigParser(texts: readonly string[]): Reading[] {
  const { stdout, status, stderr } = spawnSync('python3', ['-c', script], {
    input: JSON.stringify(texts),
    encoding: 'utf8',
    maxBuffer: 256 * 1024 * 1024,
  });
  if (status !== 0) throw new Error(`python3: ${stderr}`);
  return (JSON.parse(stdout) as (Reading | null)[]).map((reading) => reading ?? undefined);
}
