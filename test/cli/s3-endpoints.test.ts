/**
 * How a service is found and trusted: the bucket in the name of the host, TLS with a certificate of one's own authority, and credentials
 * out of the files of the AWS SDK. By commands in processes of their own, whose environment says so, and by programs.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { noise } from '../store/support/sample-stream.ts';
import { S3TestServer } from '../support/s3/server.ts';
import { accessKey, secretKey } from '../support/s3/signature.ts';
import { Authority, hasOpenssl } from '../transport/support/pki.ts';
import { makeFolder } from './support/folders.ts';
import { type CliResult, chkpt, chkptOk } from './support/run-cli.ts';

const image = Buffer.from(noise('image', 300_000)).subarray(0, 286_720);
const nothing = {
  AWS_EC2_METADATA_DISABLED: 'true',
  AWS_CONFIG_FILE: '/dev/null',
  AWS_SHARED_CREDENTIALS_FILE: '/dev/null',
  AWS_REGION: 'us-east-1',
};
const credentials = { ...nothing, AWS_ACCESS_KEY_ID: accessKey, AWS_SECRET_ACCESS_KEY: secretKey };

let cwd = '';
beforeAll(() => {
  for (const name of Object.keys(process.env)) if (name.startsWith('AWS_')) delete process.env[name];
});
beforeEach(() => {
  cwd = makeFolder();
  writeFileSync(`${cwd}/ram`, image);
});

type Environment = Record<string, string>;

function run(words: readonly string[], env: Environment): Promise<CliResult> {
  return chkpt(words, { cwd, env: { HOME: cwd, ...env } });
}

/** Saves, verifies and loads, and it is what it was. */
async function expectThereAndBack(url: string, env: Environment): Promise<void> {
  const options = { cwd, env: { HOME: cwd, ...env } };
  await chkptOk(['save', '--memory', 'ram', '--quiet', url], options);
  await chkptOk(['verify', url], options);
  await chkptOk(['load', url, '--memory', 'back'], options);
  expect(readFileSync(`${cwd}/back`).equals(image)).toBe(true);
}

async function expectRefused(url: string, env: Environment, code: string, exitCode = 1): Promise<void> {
  for (const words of [
    ['save', '--memory', 'ram', '--quiet', url],
    ['load', url, '--memory', 'never'],
  ]) {
    const result = await run(words, env);
    expect(result.stderr).toMatch(new RegExp(`^chkpt: ${code}: .*\n$`));
    expect(result.code).toBe(exitCode);
  }
  expect(readdirSync(cwd)).not.toContain('never');
}

describe('the bucket in the name of the host', () => {
  test('is asked for there, and goes to this machine whatever the resolver knows', async () => {
    const server = await S3TestServer.start();
    const hosts = new Set<string | undefined>();
    server.fault = ({ headers, bucket }) => {
      hosts.add(headers['host']?.replace(/:\d+$/, ''));
      expect(bucket).toBe('bucket');
      return undefined;
    };
    const url = `s3://bucket/vm?endpoint=${server.endpointAt('localhost')}`;
    await expectThereAndBack(`${url}&path-style=false`, credentials);
    expect([...hosts]).toEqual(['bucket.localhost']);
    hosts.clear();
    await expectThereAndBack(url, credentials);
    expect([...hosts]).toEqual(['localhost']);
    hosts.clear();
    // Without `endpoint` the SDK decides: what it finds in the environment is used as at AWS.
    await expectThereAndBack('s3://bucket/vm', {
      ...credentials,
      AWS_ENDPOINT_URL_S3: server.endpointAt('localhost'),
    });
    expect([...hosts]).toEqual(['bucket.localhost']);
    expect(server.remains()).toHaveLength(2);
  });

  test('by http: of another machine is CHKPT_INSECURE, as in the path', async () => {
    const url = 's3://bucket/vm?endpoint=http://s3.example&path-style=false';
    await expectRefused(url, credentials, 'CHKPT_INSECURE', 2);
    const alike = url.replace('s3.example', 'localhost.example');
    await expectRefused(alike, credentials, 'CHKPT_INSECURE', 2);
  });
});

describe.skipIf(!hasOpenssl)('https:', () => {
  let authority: Authority;
  beforeAll(() => {
    authority = new Authority('authority of the tests');
  });

  const trusting = (): Environment => {
    writeFileSync(`${cwd}/ca.pem`, authority.cert);
    return { ...credentials, NODE_EXTRA_CA_CERTS: `${cwd}/ca.pem` };
  };

  test('with an authority that NODE_EXTRA_CA_CERTS names: the bucket in the path, and in the host', async () => {
    const names = 'IP:127.0.0.1,DNS:localhost,DNS:bucket.localhost';
    const server = await S3TestServer.start('with-test', authority.issue('service', { names }));
    await expectThereAndBack(server.url('vm'), trusting());
    const inHost = `s3://bucket/vm?endpoint=${server.endpointAt('localhost')}&path-style=false`;
    await expectThereAndBack(inHost, trusting());
  });

  test.each<[string, () => Parameters<Authority['issue']>[1], () => Environment]>([
    ['of an unknown authority', () => ({}), () => credentials],
    ['of another name', () => ({ names: 'DNS:other.example' }), trusting],
    ['that has expired', () => ({ days: [-3, -1] }), trusting],
  ])('with a certificate %s is CHKPT_UNAUTHENTICATED, and nothing is asked', async (_, options, env) => {
    const server = await S3TestServer.start('with-test', authority.issue('service', options()));
    await expectRefused(server.url('vm'), env(), 'CHKPT_UNAUTHENTICATED');
    expect(server.log).toEqual([]);
  });

  test('where the service has no TLS, and TLS where it is not asked for, are typed errors', async () => {
    const plain = await S3TestServer.start();
    await expectRefused(plain.url('vm').replace('=http:', '=https:'), credentials, 'CHKPT_IO');
    const secure = await S3TestServer.start('with-test', authority.issue('service'));
    await expectRefused(secure.url('vm').replace('=https:', '=http:'), credentials, 'CHKPT_LINK_LOST');
  });
});

describe('credentials', () => {
  const file = (profile: string, key: string, secret: string): string =>
    `[${profile}]\naws_access_key_id = ${key}\naws_secret_access_key = ${secret}\n`;

  test('come from the shared file, by profile, and region and endpoint from the other', async () => {
    const server = await S3TestServer.start();
    const wrong = file('default', 'AKOTHER', 'wrong');
    writeFileSync(`${cwd}/credentials`, `${wrong}\n${file('lab', accessKey, secretKey)}`);
    const env = { ...nothing, AWS_SHARED_CREDENTIALS_FILE: `${cwd}/credentials` };
    await expectThereAndBack(server.url('vm'), { ...env, AWS_PROFILE: 'lab' });
    await expectRefused(server.url('vm'), env, 'CHKPT_PERMISSION');
    await expectRefused(server.url('vm'), { ...env, AWS_PROFILE: 'nobody' }, 'CHKPT_PERMISSION');
    writeFileSync(
      `${cwd}/config`,
      `[profile lab]\nregion = eu-test-1\nendpoint_url = ${server.endpointAt('127.0.0.1')}\n`,
    );
    const { AWS_REGION: _, ...lab } = { ...env, AWS_PROFILE: 'lab', AWS_CONFIG_FILE: `${cwd}/config` };
    await expectThereAndBack('s3://bucket/vm', lab);
  });

  test('in the environment come first, and a token goes with them', async () => {
    const server = await S3TestServer.start();
    const tokens = new Set<string | undefined>();
    server.fault = ({ headers }) => {
      tokens.add(headers['x-amz-security-token']);
      return undefined;
    };
    writeFileSync(`${cwd}/credentials`, file('default', 'AKOTHER', 'wrong'));
    const env = { ...credentials, AWS_SHARED_CREDENTIALS_FILE: `${cwd}/credentials` };
    await expectThereAndBack(server.url('vm'), { ...env, AWS_SESSION_TOKEN: 'of a session' });
    expect([...tokens]).toEqual(['of a session']);
  });

  test('that are nowhere, or wrong, are CHKPT_PERMISSION', async () => {
    const server = await S3TestServer.start();
    await expectRefused(server.url('vm'), nothing, 'CHKPT_PERMISSION');
    await expectRefused(server.url('vm'), { ...credentials, AWS_SECRET_ACCESS_KEY: 'x' }, 'CHKPT_PERMISSION');
    expect(server.log).toEqual([]);
  });
});
