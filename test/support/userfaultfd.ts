/** Whether this process may certainly load lazily: there no test may be passed by a load that was not. Elsewhere it may still be able to. */
import { accessSync, constants } from 'node:fs';

export const hasUserfaultfd = ((): boolean => {
  try {
    accessSync('/dev/userfaultfd', constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
})();
