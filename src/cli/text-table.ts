/** Columns of text, each as wide as its widest cell; numbers to the right. */

export interface Column {
  readonly title: string;
  readonly align?: 'left' | 'right';
}

export function textTable(columns: readonly Column[], rows: readonly (readonly string[])[]): string {
  const widths = columns.map(({ title }) => title.length);
  for (const row of rows) {
    for (const [index, cell] of row.entries()) widths[index] = Math.max(widths[index] ?? 0, cell.length);
  }
  const lines = [columns.map(({ title }) => title), ...rows].map((row) => {
    const cells = row.map((cell, index) => {
      const width = widths[index] ?? 0;
      return columns[index]?.align === 'right' ? cell.padStart(width) : cell.padEnd(width);
    });
    return `${cells.join('  ').trimEnd()}\n`;
  });
  return lines.join('');
}
