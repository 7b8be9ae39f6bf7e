import type { SecretData } from '../../../src/core/credential.js';
import type { Backend } from '../../../src/plugins/backends/contract.js';

/** What a kind has to bring to be held to the contract: the real thing, and the ways to look at it that the broker does not have. */
export interface Harness {
  /** What the kind has to show, one secret of the world for each. */
  promises: Promised[];
  /** The optional contracts that it fulfils. */
  abilities: Ability[];
  /** `hangs`: the real thing can be brought to take a call and never answer. */
  canHang: boolean;
  /** Starts the real thing; once for all cases. */
  open(): Promise<World>;
}

export type Promised = 'instant' | 'eventual' | 'expiry-only' | 'rotate-only';
export type Ability = 'renew' | 'find' | 'probe';

export interface World {
  /** The kind as one broker has it. */
  backend: Backend;
  /** As another broker of the same installation has it, and as one of another installation. Both are closed by who asks. */
  another(): Backend | Promise<Backend>;
  stranger(): Backend | Promise<Backend>;
  /** At least one for each revocability that the kind can have. */
  secrets: SecretCase[];
  /** The secret of the other installation, where it cannot be one of ours: a place may belong to one installation only. */
  theirs?: SecretCase;
  /** Settings that are refused, by what is wrong with them. */
  badSettings: Record<string, Record<string, unknown>>;
  /** Whether its holder can use it now, asked of the real thing. */
  works(data: SecretData, secret: SecretCase): Promise<boolean>;
  /** How many credentials of ours the real thing has, by its own count; absent where it cannot have any. */
  count?(): Promise<number>;
  /** Rotate-only kinds: changes the value. */
  rotate?(secret: SecretCase): Promise<void>;
  /** `refuses`: nobody listens. `hangs`: calls are taken and never answered. */
  down(how: 'refuses' | 'hangs'): Promise<void>;
  up(): Promise<void>;
  /** What the broker knows and nobody may read in an error: its own password, key, token. */
  ours: string[];
  close(): Promise<void>;
}

export interface SecretCase {
  name: string;
  settings: Record<string, unknown>;
  promised: Promised;
  /** The life to order; default five minutes. Short for what can only expire. */
  ttlMs?: number;
  /** Fields of `data` that are secret. */
  secretFields: string[];
}
