import { Option } from 'commander';
import { UsageError } from './output.js';

/** `/agent/x` in development is short for the whole SPIFFE ID. Whatever names an identity on the command line is read by this. */
export function spiffeIdOf(name: string): string {
  return name.startsWith('/') ? `spiffe://dev.mayfly${name}` : name;
}

/** `agent/x` is neither: the slash in front was forgotten. */
function agentOf(name: string): string {
  if (/^[^/:]+\//.test(name))
    throw new UsageError(`--agent: ${name} is no SPIFFE ID and no path; did you mean /${name}?`);
  return spiffeIdOf(name);
}

/** `--agent`, in full or in short; the action gets the SPIFFE ID. */
export function agentOption(description: string): Option {
  return new Option('--agent <id>', `${description} (SPIFFE ID, or /path in development)`).argParser(agentOf);
}

/** `--agent`, as often as there are agents. */
export function agentsOption(description: string): Option {
  return agentOption(description).argParser((name: string, before: string[] = []) => [...before, agentOf(name)]);
}
