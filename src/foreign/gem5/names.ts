/** What the files in the folder of a gem5 checkpoint are called. */
import { pidText, uuidText } from '../../store/temporary-names.ts';

export const textName = 'm5.cpt';
const workPattern = new RegExp(`^\\.tmp-${uuidText}-(${pidText})$`);
const manifestPattern = new RegExp(`^chkpt(?:\\.${uuidText}(?:\\.[1-9][0-9]{0,2})?)?\\.manifest\\.json$`);

export function isManifestName(entry: string): boolean {
  return manifestPattern.test(entry);
}

/** The file beside a manifest that tells people what became of a skeleton. */
export function reportNameOf(manifest: string): string {
  return manifest.replace(/manifest\.json$/, 'report.json');
}

export function workName(uuid: string, pid: number): string {
  return `.tmp-${uuid}-${pid}`;
}

/** Of the name of such a folder: the process that made it. */
export function workPidIn(entry: string): number | undefined {
  const pid = workPattern.exec(entry)?.[1];
  return pid === undefined ? undefined : Number(pid);
}
