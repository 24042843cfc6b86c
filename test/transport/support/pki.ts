/** A small public-key infrastructure, made by openssl once for a test file. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { afterAll } from 'vitest';

export const hasOpenssl = spawnSync('openssl', ['version']).status === 0;
if (!hasOpenssl) console.warn('TLS with certificates is not tested: there is no openssl to make any');

export interface Certified {
  readonly key: string;
  readonly cert: string;
}

export interface CertificateOptions {
  /** Default `/CN=<name>`. */
  readonly subject?: string;
  /** Default both client and server. */
  readonly usage?: string;
  /** Default 127.0.0.1 and localhost. */
  readonly names?: string;
  /** Days from now on which it begins and ends; default -1 and 1. */
  readonly days?: readonly [from: number, to: number];
}

export class Authority {
  readonly key: string;
  readonly cert: string;
  readonly #folder: string;
  #count = 0;

  constructor(name: string) {
    this.#folder = mkdtempSync(`${tmpdir()}/chkpt-pki-`);
    afterAll(() => rmSync(this.#folder, { recursive: true, force: true }));
    const extensions = [
      '-addext',
      'basicConstraints=critical,CA:TRUE',
      '-addext',
      'keyUsage=critical,keyCertSign',
    ];
    this.#openssl(
      'req',
      '-x509',
      ...newKey,
      ...'-nodes -keyout ca.key -out ca.pem -days 2'.split(' '),
      '-subj',
      `/CN=${name}`,
      ...extensions,
    );
    this.key = this.#read('ca.key');
    this.cert = this.#read('ca.pem');
  }

  /** A certificate for both ends, unless told otherwise. */
  issue(name: string, options: CertificateOptions = {}): Certified {
    const { subject = `/CN=${name}`, usage = 'clientAuth,serverAuth', days = [-1, 1] } = options;
    const { names = 'IP:127.0.0.1,DNS:localhost' } = options;
    this.#count += 1;
    const base = `c${this.#count}`;
    this.#openssl(
      'req',
      '-new',
      ...newKey,
      '-nodes',
      '-keyout',
      `${base}.key`,
      '-out',
      `${base}.csr`,
      '-subj',
      subject,
    );
    writeFileSync(
      `${this.#folder}/${base}.ext`,
      `subjectAltName=${names}\nextendedKeyUsage=${usage}\nbasicConstraints=CA:FALSE\n`,
    );
    // `x509 -req` has no start date before version 3.4: `ca` has.
    writeFileSync(`${this.#folder}/${base}.db`, '');
    writeFileSync(
      `${this.#folder}/${base}.cnf`,
      `[ca]\ndefault_ca=d\n[d]\ndatabase=${base}.db\nnew_certs_dir=.\nserial=${base}.srl\ndefault_md=sha256\npolicy=p\n[p]\ncommonName=optional\norganizationName=optional\n`,
    );
    writeFileSync(`${this.#folder}/${base}.srl`, `${(4096 + this.#count).toString(16)}\n`);
    const [from, to] = days.map(asn1Time);
    this.#openssl(
      'ca',
      '-batch',
      '-notext',
      '-config',
      `${base}.cnf`,
      '-cert',
      'ca.pem',
      '-keyfile',
      'ca.key',
      '-in',
      `${base}.csr`,
      '-out',
      `${base}.pem`,
      '-extfile',
      `${base}.ext`,
      '-startdate',
      from ?? '',
      '-enddate',
      to ?? '',
    );
    return { key: this.#read(`${base}.key`), cert: this.#read(`${base}.pem`) };
  }

  #openssl(...words: string[]): void {
    const { status, stderr } = spawnSync('openssl', words, { cwd: this.#folder, encoding: 'utf8' });
    if (status !== 0) throw new Error(`openssl ${words[0]}: ${stderr}`);
  }

  #read(name: string): string {
    return readFileSync(`${this.#folder}/${name}`, 'utf8');
  }
}

const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256'];

function asn1Time(days: number): string {
  const iso = new Date(Date.now() + days * 86_400_000).toISOString();
  return `${iso.slice(0, 19).replace(/[-T:]/g, '')}Z`;
}
