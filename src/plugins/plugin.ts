import type { z } from 'zod';

/**
 * One kind of one family: its name in the configuration, the schema of that configuration, and how it is
 * built. A family's registry lists its kinds, one line each; an unknown kind stops the start.
 */
export interface Plugin<Config extends z.ZodType, Deps, Made> {
  kind: string;
  config: Config;
  create(config: z.output<Config>, deps: Deps): Promise<Made> | Made;
}

export function definePlugin<Config extends z.ZodType, Deps, Made>(
  plugin: Plugin<Config, Deps, Made>,
): Plugin<Config, Deps, Made> {
  return plugin;
}
