import { z } from 'zod';
import { fileSource } from './file.js';
import { httpsWebSource } from './https-web.js';
import type { BundleSource, SourceDeps } from './source.js';
import { workloadApiSource } from './workload-api.js';

/** Where a trust domain's bundle can come from: one line per kind here, and one in `createBundleSource`. */
export const bundleSourceConfig = z.discriminatedUnion('kind', [
  fileSource.config,
  httpsWebSource.config,
  workloadApiSource.config,
]);

export type BundleSourceConfig = z.output<typeof bundleSourceConfig>;

export async function createBundleSource(
  config: BundleSourceConfig,
  trustDomain: string,
  deps: SourceDeps,
): Promise<BundleSource> {
  switch (config.kind) {
    case 'file':
      return fileSource.create(config, trustDomain, deps);
    case 'https_web':
      return httpsWebSource.create(config, trustDomain, deps);
    case 'workload_api':
      return workloadApiSource.create(config, trustDomain, deps);
  }
}
