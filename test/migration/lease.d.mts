export function runUnderLease(
  vm: { pause(): Promise<void>; resume(): Promise<void> },
  path: string,
  name: string,
): void;
export function leasesOf(path: string): { readonly taken: string[]; readonly violations: string[] };
