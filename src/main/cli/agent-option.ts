import { Option } from 'commander';
import { isName } from '../../core/identity.js';
import { UsageError } from './output.js';

/** `/agent/x` in development is short for the whole SPIFFE ID. Whatever names an identity on the command line is read by this. */
export function spiffeIdOf(name: string): string {
  return name.startsWith('/') ? `spiffe://dev.mayfly${name}` : name;
}

/** Neither `agent/x` nor `x` can be anybody: what is told is the path that was most likely meant. */
export function agentOf(name: string, where = '--agent'): string {
  const id = spiffeIdOf(name);
  // What is empty is told as empty, by checkIds.
  if (name === '' || isName(id)) return id;
  const meant = /^[A-Za-z0-9._-]+$/.test(name) ? `/agent/${name}` : `/${name}`;
  const suggestion = isName(spiffeIdOf(meant)) ? `; did you mean ${meant}?` : '.';
  throw new UsageError(`${where}: ${name} is no SPIFFE ID and no path${suggestion}`);
}

/** `--agent`, in full or in short; the action gets the SPIFFE ID. */
export function agentOption(description: string): Option {
  return new Option('--agent <id>', `${description} (SPIFFE ID, or /path in development)`).argParser((name: string) =>
    agentOf(name),
  );
}

/** `--agent`, as often as there are agents. */
export function agentsOption(description: string): Option {
  return agentOption(description).argParser((name: string, before: string[] = []) => [...before, agentOf(name)]);
}
