/** Two commands with a connection between them: one that listens, and certificates for both. */
import type { ChildProcess } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { Authority, hasOpenssl } from '../../transport/support/pki.ts';
import { type CliResult, chkpt } from './run-cli.ts';

/** Starts a command that listens; where, and what comes of it. */
export async function listening(
  args: readonly string[],
  cwd: string,
): Promise<{ address: string; child: ChildProcess; result: Promise<CliResult> }> {
  let result: Promise<CliResult> | undefined;
  const [address, child] = await new Promise<[string, ChildProcess]>((resolve, reject) => {
    result = chkpt(args, {
      cwd,
      onStart: (started) => {
        let told = '';
        started.stderr?.on('data', (piece) => {
          told += piece;
          const [, found] = /listening(?:":| at)\s*"?([^\s"]+)/.exec(told) ?? [];
          if (found !== undefined) resolve([found, started]);
        });
      },
    });
    result.then(({ stderr }) => reject(new Error(stderr)), reject);
  });
  return { address, child, result: result as Promise<CliResult> };
}

const authority = hasOpenssl ? new Authority('chkpt test CA') : undefined;

/** What both sides are given. */
export function securityIn(cwd: string): { near: string[]; far: string[] } {
  if (authority === undefined) throw new Error('no openssl');
  writeFileSync(`${cwd}/ca.pem`, authority.cert);
  const options = (name: string): string[] => [
    ...['--tls-key', `${name}.key`, '--tls-cert', `${name}.pem`, '--tls-ca', 'ca.pem'],
  ];
  const prints = ['near', 'far'].map((name) => {
    const { key, cert } = authority.issue(name);
    writeFileSync(`${cwd}/${name}.key`, key);
    writeFileSync(`${cwd}/${name}.pem`, cert);
    return new X509Certificate(cert).fingerprint256;
  });
  return {
    near: [...options('near'), '--tls-peer', prints[1] ?? ''],
    far: [...options('far'), '--tls-peer', (prints[0] ?? '').toLowerCase().replaceAll(':', '')],
  };
}
