/** Text from a checkpoint or a file name on its way to a terminal. */

// C0 and C1 controls, DEL, line and paragraph separators, and everything that changes the direction of text.
const unprintable =
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it is about
  /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]/g;

const short: Readonly<Record<string, string>> = { '\n': '\\n', '\r': '\\r', '\t': '\\t', '\0': '\\0' };

/** The text in one line, without anything that a terminal obeys. Backslashes stay: this is for people, not for parsers. */
export function printable(text: string): string {
  return text.replace(unprintable, (character) => {
    const code = character.charCodeAt(0);
    const digits = code.toString(16);
    return (
      short[character] ?? (code <= 0xff ? `\\x${digits.padStart(2, '0')}` : `\\u${digits.padStart(4, '0')}`)
    );
  });
}
