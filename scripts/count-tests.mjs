// Adds up what the test runners wrote into out/results/, as the closing line of CI.
import { existsSync, readdirSync, readFileSync } from 'node:fs';

const folder = new URL('../out/results/', import.meta.url);
let passed = 0;
let failed = 0;
let skipped = 0;
for (const name of existsSync(folder) ? readdirSync(folder) : []) {
  if (!name.endsWith('.json')) continue;
  const result = JSON.parse(readFileSync(new URL(name, folder), 'utf8'));
  if (name.startsWith('vitest')) {
    passed += result.numPassedTests;
    failed += result.numFailedTests;
    skipped += result.numPendingTests;
  } else if (name.startsWith('core')) {
    passed += result.tests - result.failures - result.disabled;
    failed += result.failures;
  } else {
    passed += result.passed;
    failed += result.failed;
  }
}
console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`);
process.exit(failed === 0 && passed > 0 ? 0 : 1);
