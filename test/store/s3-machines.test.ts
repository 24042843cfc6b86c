/** Whole machines in `s3:`, with the service of the tests; `s3-ceph.test.ts` has the same with a real one. */
import { S3Client } from '@aws-sdk/client-s3';
import { afterAll, beforeAll } from 'vitest';
import '../support/s3/credentials.ts';
import { loadSdk } from '../../src/store/s3/sdk.ts';
import { S3Service } from '../../src/store/s3/service.ts';
import { describeS3Machines } from '../conformance/s3-machines.suite.ts';
import { S3TestServer } from '../support/s3/server.ts';

let server: S3TestServer;
let service: S3Service;
let placeCount = 0;

beforeAll(async () => {
  server = await S3TestServer.start('by-hand');
  const client = new S3Client({ endpoint: server.endpoint, region: 'us-east-1', forcePathStyle: true });
  service = new S3Service(await loadSdk('test'), client, 'bucket', 'test');
});
afterAll(() => server.close());

describeS3Machines('machines in the service of the tests', () => {
  placeCount += 1;
  const prefix = `place ${placeCount}/`;
  return { service, prefix, url: (name = '', more = '') => server.url(encodeURI(`${prefix}${name}`), more) };
});
