import type { Cell } from './cell.js';
import { reader } from './read.js';
import type { Views } from './stores.js';

export function views(cell: Cell, cellKey: Uint8Array): Views {
  const { line, keys, encryption } = cell;
  const read = reader(cell);
  const bundleFiles: Views['bundleFiles'] = async (digest) => {
    const signed = await line.ask((client) => client.hget(keys.bundle(digest), 'files'));
    return signed === null ? undefined : JSON.parse(encryption.verify('bundle', digest, signed));
  };
  return {
    task: async (id: string) => (await read({ taskId: id, nowMs: cell.clock.now() }))?.tasks.at(-1),
    taskIdByRef: async (opener: string, ref: string) =>
      (await line.ask((client) => client.get(keys.ref(opener, ref)))) ?? undefined,
    bundleFiles,
    activeBundle: async () => {
      const digest = await line.ask((client) => client.hget(keys.named('cell'), 'bundle'));
      const files = digest ? await bundleFiles(digest) : undefined;
      return files && { digest: digest as string, files };
    },
    keyRing: async () => {
      const [ring, version] = await line.ask((client) => client.hmget(keys.named('keyring'), 'ring', 'version'));
      if (!ring) return undefined;
      return { ring: JSON.parse(encryption.decrypt('key-ring', 'keyring', ring).toString()), version: Number(version) };
    },
    cellKey: async () => cellKey,
  } as unknown as Views;
}
