import { startCluster, startRedis } from './redis-servers.js';

export interface Store {
  url: string | string[];
  stop(): Promise<void>;
}

/** The stores that everything has to be the same on. */
export const STORES: Record<'redis' | 'valkey' | 'cluster', () => Promise<Store>> = {
  redis: () => startRedis(),
  valkey: () => startRedis({ flavour: 'valkey' }),
  cluster: async () => {
    const { urls, stop } = await startCluster(3);
    return { url: urls, stop };
  },
};

export const STORE_NAMES = Object.keys(STORES) as (keyof typeof STORES)[];
