import type { BackendConfig, BackendsConfig } from './config.js';
import type { Backend, BackendDeps, Backends } from './contract.js';
import { backendKinds } from './registry.js';

/**
 * Every configured backend, ready to be asked. Nothing is connected yet: a backend that is down does not hold up the start, and its secrets stay closed
 * until `check` finds nothing wrong.
 */
export async function openBackends(config: BackendsConfig, deps: Omit<BackendDeps, 'name'>): Promise<Backends> {
  const opened = new Map<string, Backend>();
  const close = async () => {
    await Promise.allSettled([...opened.values()].map((backend) => backend.close()));
  };
  try {
    for (const [name, one] of Object.entries(config)) opened.set(name, await open(one, { ...deps, name }));
  } catch (error) {
    await close();
    throw error;
  }
  const all = [...opened.values()];
  return { get: (name) => opened.get(name), all: () => all, close };
}

function open(config: BackendConfig, deps: BackendDeps): Promise<Backend> | Backend {
  // The kind's own schema made this config, so it is the one that its `create` takes.
  const create = backendKinds[config.kind].create as (own: BackendConfig, deps: BackendDeps) => Promise<Backend>;
  return create(config, deps);
}
