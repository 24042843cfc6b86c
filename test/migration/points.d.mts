export function watchPoints(
  classes: { readonly Journal: unknown; readonly RecordChannel: unknown },
  onPoint: (point: string) => unknown,
): () => void;
