import { BrokerError } from '../../core/errors.js';
import { definePlugin } from '../plugin.js';
import type { Backend, BackendDeps } from './contract.js';
import { postgresConfig } from './postgres/config.js';

export const postgres = definePlugin({
  kind: 'postgres',
  config: postgresConfig,
  create(_config, { name }: BackendDeps): Backend {
    throw new BrokerError('unavailable', `backends.${name}: the kind postgres is not built yet.`);
  },
});
