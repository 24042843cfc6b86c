/**
 * The stores of Palacios by URL. `palacios+file:PATH`, `palacios+textfile:PATH`, `palacios+dir:PATH`: everything behind the colon is a
 * path. `palacios+net:a:IP:PORT` listens, `palacios+net:c:IP:PORT` connects.
 */
import { guardStore } from '../../store/guard.ts';
import { defaultStoreRegistry, type Store } from '../../store/index.ts';
import { directoryPath, parseStoreUrl, urlError } from '../../store/url.ts';
import type { ForeignFormat } from '../foreign-format.ts';
import { ForeignStore } from '../foreign-store.ts';
import { PalaciosFolderFormat, type PalaciosFolderOptions } from './folder-format.ts';
import { fileForm, plainForm, textForm } from './form.ts';
import { PalaciosNetFormat, type PalaciosNetOptions } from './net-format.ts';
import { parsePalaciosAddress } from './net-link.ts';

const forms = new Map([fileForm, textForm, plainForm].map((form) => [form.scheme as string, form]));
export const palaciosNetScheme = 'palacios+net';

/** What a URL cannot say. Folders have no use for options of connections. */
export interface PalaciosStoreOptions
  extends Omit<PalaciosFolderOptions, 'environment'>,
    PalaciosNetOptions {}

/**
 * The store of a `palacios+…:` URL. Throws `CHKPT_STORE_URL`, `RangeError`; whether a connection may leave this machine is asked when it
 * is opened.
 */
export function openPalaciosStore(url: string, options: PalaciosStoreOptions = {}): Store {
  return guardStore(new ForeignStore(url, formatOf(url, options)), url);
}

function formatOf(url: string, options: PalaciosStoreOptions): ForeignFormat {
  const { scheme, rest } = parseStoreUrl(url);
  if (scheme === palaciosNetScheme)
    return new PalaciosNetFormat(parsePalaciosAddress(rest, url), url, options);
  const form = forms.get(scheme);
  if (form === undefined) throw urlError('this is no store of Palacios', url);
  return new PalaciosFolderFormat(form, directoryPath(rest, url), url, options);
}

export function registerPalacios(): void {
  for (const scheme of [...forms.keys(), palaciosNetScheme]) {
    defaultStoreRegistry.register(scheme, (_rest, url) => openPalaciosStore(url));
  }
}
