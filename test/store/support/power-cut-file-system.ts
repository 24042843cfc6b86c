/**
 * A file system in memory that knows what a power cut may take away. It grants no more than POSIX does:
 *
 *   - the content of a file is safe up to its last fsync; of what was written since, anything may be left:
 *     nothing,
 *     all, a part, or the right length full of zeros;
 *   - names in a folder are safe up to the last fsync of the folder; of the changes since, any subset may be
 *     left. A
 *     rename is one change.
 */
import { constants } from 'node:fs';
import type { FileStatus, FileSystem, OpenFile } from '../../../src/store/index.ts';

interface FileNode {
  readonly kind: 'file';
  readonly inode: bigint;
  content: Buffer;
  safeContent: Buffer;
}

interface FolderNode {
  readonly kind: 'directory';
  readonly inode: bigint;
  entries: Map<string, Node>;
  safeEntries: Map<string, Node>;
  /** Since the last flush, in order. */
  changes: Change[];
}

type Node = FileNode | FolderNode;
/** Names that change together; `undefined` removes. */
type Change = ReadonlyMap<string, Node | undefined>;

/** Decides what is left: a number from 0 to `count - 1`. */
export type Choose = (count: number) => number;

export class PowerCutFileSystem implements FileSystem {
  readonly #root: FolderNode;
  /** Called after each call that changed something. */
  onChange: () => void = () => undefined;
  #inodeCount = 1n;

  constructor(root: FolderNode = folderNode(1n), inodeCount = 1n) {
    this.#root = root;
    this.#inodeCount = inodeCount;
  }

  /** Makes everything safe, as after a long time. */
  settle(): void {
    settle(this.#root);
  }

  /** What is there after a power cut now. */
  cut(choose: Choose): PowerCutFileSystem {
    return new PowerCutFileSystem(cutFolder(this.#root, choose, new Map()), this.#inodeCount);
  }

  async open(path: string, flags: number): Promise<OpenFile> {
    const { folder, name } = this.#parent(path);
    const found = folder.entries.get(name);
    if ((flags & constants.O_CREAT) === 0) {
      if (found === undefined) throw errnoError('ENOENT');
      return new PowerCutFile(found, () => undefined);
    }
    if (found !== undefined) throw errnoError('EEXIST');
    const made: FileNode = {
      kind: 'file',
      inode: this.#nextInode(),
      content: Buffer.alloc(0),
      safeContent: Buffer.alloc(0),
    };
    this.#change(folder, [[name, made]]);
    return new PowerCutFile(made, () => this.onChange());
  }

  async rename(from: string, to: string): Promise<void> {
    const source = this.#parent(from);
    const target = this.#parent(to);
    if (source.folder !== target.folder) throw new Error('the model renames inside one folder only');
    const node = source.folder.entries.get(source.name);
    if (node === undefined) throw errnoError('ENOENT');
    const replaced = target.folder.entries.get(target.name);
    if (replaced?.kind === 'directory' && replaced.entries.size > 0) throw errnoError('ENOTEMPTY');
    this.#change(source.folder, [
      [source.name, undefined],
      [target.name, node],
    ]);
  }

  async link(existing: string, added: string): Promise<void> {
    const node = this.#node(existing);
    const { folder, name } = this.#parent(added);
    if (folder.entries.has(name)) throw errnoError('EEXIST');
    this.#change(folder, [[name, node]]);
  }

  async unlink(path: string): Promise<void> {
    if (this.#node(path).kind !== 'file') throw errnoError('EISDIR');
    this.#remove(path);
  }

  async mkdir(path: string): Promise<void> {
    const { folder, name } = this.#parent(path);
    if (folder.entries.has(name)) throw errnoError('EEXIST');
    this.#change(folder, [[name, folderNode(this.#nextInode())]]);
  }

  async rmdir(path: string): Promise<void> {
    const node = this.#node(path);
    if (node.kind !== 'directory') throw errnoError('ENOTDIR');
    if (node.entries.size > 0) throw errnoError('ENOTEMPTY');
    this.#remove(path);
  }

  async readdir(path: string): Promise<string[]> {
    return [...this.#folder(path).entries.keys()];
  }

  async status(path: string): Promise<FileStatus> {
    return statusOf(this.#node(path));
  }

  async fsyncDirectory(path: string): Promise<void> {
    const folder = this.#folder(path);
    folder.safeEntries = new Map(folder.entries);
    folder.changes = [];
    this.onChange();
  }

  #remove(path: string): void {
    const { folder, name } = this.#parent(path);
    this.#change(folder, [[name, undefined]]);
  }

  #change(folder: FolderNode, change: readonly (readonly [string, Node | undefined])[]): void {
    const names: Change = new Map(change);
    apply(folder.entries, names);
    folder.changes.push(names);
    this.onChange();
  }

  #nextInode(): bigint {
    this.#inodeCount += 1n;
    return this.#inodeCount;
  }

  #node(path: string): Node {
    let node: Node = this.#root;
    for (const name of path.split('/').filter((part) => part !== '')) {
      if (node.kind !== 'directory') throw errnoError('ENOTDIR');
      const next = node.entries.get(name);
      if (next === undefined) throw errnoError('ENOENT');
      node = next;
    }
    return node;
  }

  #folder(path: string): FolderNode {
    const node = this.#node(path);
    if (node.kind !== 'directory') throw errnoError('ENOTDIR');
    return node;
  }

  #parent(path: string): { folder: FolderNode; name: string } {
    const slash = path.lastIndexOf('/');
    return { folder: this.#folder(path.slice(0, slash)), name: path.slice(slash + 1) };
  }
}

class PowerCutFile implements OpenFile {
  readonly #node: Node;
  readonly #onChange: () => void;

  constructor(node: Node, onChange: () => void) {
    this.#node = node;
    this.#onChange = onChange;
  }

  async read(target: Uint8Array, position: number): Promise<number> {
    return this.#file().content.copy(target, 0, position);
  }

  async write(pieces: readonly Uint8Array[], position: number): Promise<number> {
    const file = this.#file();
    const bytes = Buffer.concat(pieces);
    const content = Buffer.alloc(Math.max(file.content.length, position + bytes.length));
    file.content.copy(content);
    content.set(bytes, position);
    file.content = content;
    this.#onChange();
    return bytes.length;
  }

  async status(): Promise<FileStatus> {
    return statusOf(this.#node);
  }

  async fsync(): Promise<void> {
    const file = this.#file();
    file.safeContent = Buffer.from(file.content);
    this.#onChange();
  }

  async close(): Promise<void> {}

  #file(): FileNode {
    if (this.#node.kind !== 'file') throw errnoError('EISDIR');
    return this.#node;
  }
}

function folderNode(inode: bigint): FolderNode {
  return { kind: 'directory', inode, entries: new Map(), safeEntries: new Map(), changes: [] };
}

function statusOf(node: Node): FileStatus {
  const bytes = node.kind === 'file' ? node.content.length : 0;
  return { kind: node.kind, bytes, changedMs: 0, inode: node.inode, names: 1 };
}

function apply(entries: Map<string, Node>, change: Change): void {
  for (const [name, node] of change) {
    if (node === undefined) entries.delete(name);
    else entries.set(name, node);
  }
}

function settle(node: Node): void {
  if (node.kind === 'file') {
    node.safeContent = Buffer.from(node.content);
    return;
  }
  node.safeEntries = new Map(node.entries);
  node.changes = [];
  for (const entry of node.entries.values()) settle(entry);
}

/** `made` keeps two names of one file the same file. */
function cutFolder(folder: FolderNode, choose: Choose, made: Map<Node, Node>): FolderNode {
  const entries = new Map(folder.safeEntries);
  for (const change of folder.changes) {
    if (choose(2) === 1) apply(entries, change);
  }
  const left = folderNode(folder.inode);
  for (const [name, node] of entries) left.entries.set(name, cutNode(node, choose, made));
  left.safeEntries = new Map(left.entries);
  return left;
}

function cutNode(node: Node, choose: Choose, made: Map<Node, Node>): Node {
  const known = made.get(node);
  if (known !== undefined) return known;
  const left = node.kind === 'directory' ? cutFolder(node, choose, made) : cutFile(node, choose);
  made.set(node, left);
  return left;
}

function cutFile({ inode, content, safeContent }: FileNode, choose: Choose): FileNode {
  const isSafe = content.equals(safeContent);
  const torn = Buffer.concat([
    content.subarray(0, content.length / 2),
    Buffer.alloc(Math.ceil(content.length / 2)),
  ]);
  const choices = isSafe ? [content] : [safeContent, content, torn, Buffer.alloc(content.length)];
  const left = Buffer.from(choices[choose(choices.length)] ?? content);
  return { kind: 'file', inode, content: left, safeContent: left };
}

function errnoError(code: string): Error {
  return Object.assign(new Error(code), { code });
}
