import { createHash } from 'node:crypto';
import { Bounded } from './bounded.js';

/** One key (or family of keys) in Redis: what it holds, how long, and what it means when it is gone. docs/reference is generated from this. */
export interface KeyDoc {
  /** The name after `{mayfly:<cell>}:`; `<…>` stands for a part that varies. */
  name: string;
  type: 'hash' | 'stream' | 'sorted set' | 'string';
  content: string;
  life: string;
  loss: string;
}

/** Every key of a cell. All carry the hash tag `{mayfly:<cell>}`, so that a script may touch any of them in one slot. */
export const KEY_DOCS: readonly KeyDoc[] = [
  {
    name: 'cell',
    type: 'hash',
    content:
      'epoch, head and fence of the line, active bundle, run id of the master, version of the locks, last beat, how far audit is trimmed',
    life: 'for ever',
    loss: 'no script runs; the epoch is raised and every earlier token is dead',
  },
  {
    name: 'feed',
    type: 'stream',
    content: 'revocations in order: epoch `e`, end `u` (ms, `-` for never), match `m` (JSON)',
    life: 'each entry until nothing it can kill is left',
    loss: 'the epoch is raised: the loss is seen by the last write of the line',
  },
  {
    name: 'feed:until',
    type: 'sorted set',
    content: 'feed entries by the end of what they can kill',
    life: 'as its entries',
    loss: 'entries are kept longer than needed',
  },
  {
    name: 'feed:readers',
    type: 'hash',
    content: 'enforcement points: resources, acknowledged position, when',
    life: 'an hour after the last acknowledgement',
    loss: 'receipts name them as silent until they acknowledge again',
  },
  {
    name: 'audit',
    type: 'stream',
    content: 'audit records (JSON) with the position they were written at',
    life: 'until moved to files',
    loss: 'records not yet moved are gone; seen by the last write, the epoch is raised',
  },
  {
    name: 'audit:mover',
    type: 'string',
    content: 'the worker that moves audit records now',
    life: 'ten seconds',
    loss: 'another worker moves them',
  },
  {
    name: 'due',
    type: 'sorted set',
    content:
      'work by the time it is due, `<job>:<id>` (at a backend `<job>@<backend>:<id>`): the outbox that the sweeper empties; what a messenger was sent for has a second more',
    life: 'each member until its work is settled',
    loss: 'work waits for the reconciler; everything revoked stays revoked, enforcement does not depend on it',
  },
  {
    name: 'task:<id>',
    type: 'hash',
    content:
      'charter and path (fixed); state, generation, context, by when its last change has to be judged, cut, heartbeat, latest expiry below, how it ended',
    life: '7 days past its deadline',
    loss: 'the task is unknown: nothing can be had for it',
  },
  {
    name: 'task:<id>:children',
    type: 'sorted set',
    content: 'direct child tasks',
    life: 'as the task',
    loss: 'children of an ended task stay listed as active until their deadline; they are dead by their path',
  },
  {
    name: 'task:<id>:tokens',
    type: 'sorted set',
    content: 'live token leases of the task by expiry (quota, enumeration)',
    life: 'trimmed at each commit, gone with the last expiry',
    loss: 'the quota counts from nothing; live tokens are not judged again but die as ever',
  },
  {
    name: 'task:<id>:credentials',
    type: 'sorted set',
    content: 'credentials of the task that are not closed',
    life: 'each until its credential is closed',
    loss: 'the quota counts from nothing; the reconciler finds the credentials',
  },
  {
    name: 'tree:<root id>',
    type: 'sorted set',
    content: 'live tasks and token leases below the root, by their end (quota of the tree)',
    life: 'trimmed at each commit, gone with the last end',
    loss: 'the quota counts from nothing',
  },
  {
    name: 'tree:<root id>:credentials',
    type: 'sorted set',
    content: 'credentials of the whole tree that are not closed, in order of their ids',
    life: 'each until its credential is closed',
    loss: 'drains miss them; the reconciler finds the credentials',
  },
  {
    name: 'tasks',
    type: 'sorted set',
    content: 'all tasks by the time they were opened',
    life: 'each 40 days',
    loss: 'lists are empty, nothing else',
  },
  {
    name: 'opener:<hash>:tasks',
    type: 'sorted set',
    content: 'tasks of one opener by the time they were opened',
    life: 'each 40 days',
    loss: 'lists are empty, nothing else',
  },
  {
    name: 'agent:<hash>:tasks',
    type: 'sorted set',
    content: 'tasks that name an agent or gave it something',
    life: 'each 40 days',
    loss: 'lists are empty, nothing else',
  },
  {
    name: 'agent:<hash>',
    type: 'hash',
    content: 'how many live token leases an agent has: in all (`n`) and by 15 s of expiry (quota)',
    life: 'gone with the last expiry',
    loss: 'the quota counts from nothing',
  },
  {
    name: 'agent:<hash>:credentials',
    type: 'sorted set',
    content: 'credentials of the agent that are not closed (quota)',
    life: 'each until its credential is closed',
    loss: 'the quota counts from nothing',
  },
  {
    name: 'ref:<hash>',
    type: 'string',
    content: "task id of an opener's own reference",
    life: 'as the task',
    loss: 'the reference can be used again',
  },
  {
    name: 'kept:<hash>',
    type: 'hash',
    content: 'ends by reference for tasks the opener has not opened yet, at most 1,000',
    life: 'each 16 minutes',
    loss: 'an end that came before its task is forgotten; the deadline ends it',
  },
  {
    name: 'tokens:<second>',
    type: 'hash',
    content: 'token leases by the second of their id: state, end, position, path; the rest is in their profile',
    life: 'longest life of a token and two minutes',
    loss: 'the tokens are unknown here: introspection says inactive, nothing can be derived from them',
  },
  {
    name: 'tokens',
    type: 'sorted set',
    content: 'which seconds have token leases',
    life: 'trimmed at each new second',
    loss: 'enumeration misses them; revocations kill them as ever',
  },
  {
    name: 'profile:<hash>',
    type: 'string',
    content: 'what many token leases have in common (JSON), under a keyed hash of itself',
    life: 'as the last token lease that has it',
    loss: 'as the token leases themselves',
  },
  {
    name: 'credential:<id>',
    type: 'hash',
    content:
      'a credential lease: record (JSON) and what changes (state, end, handle `h:…`, deadline of its intent, attempts, whose attempt it is now, last problem, how its death is known); what to try it with when it should be dead, encrypted under the root key, until then',
    life: 'until closed, then 7 days',
    loss: 'the reconciler finds the credential at its backend and revokes it',
  },
  {
    name: 'credentials',
    type: 'sorted set',
    content: 'credentials that are not closed, in order of their ids',
    life: 'each until its credential is closed',
    loss: 'enumeration misses them; the reconciler finds them',
  },
  {
    name: 'backend:<hash>:credentials',
    type: 'sorted set',
    content:
      'credentials of a backend that are not closed: pending (1), active (2), being revoked (3), stuck (4), dead with something left of them (5)',
    life: 'each until its credential is closed',
    loss: 'counts are wrong, and the reconciler takes what it does not see for lost only when it is not at the backend either',
  },
  {
    name: 'backend:<hash>:reconciled',
    type: 'hash',
    content:
      'the latest comparison of a backend with the leases: when, how many were found, orphans, lost; and orphans ever',
    life: 'for ever',
    loss: 'unknown until the next comparison, within 15 s; orphans are counted from nothing',
  },
  {
    name: 'stuck',
    type: 'sorted set',
    content: 'credentials that are not confirmed dead after six attempts, or of which something is left',
    life: 'each until its credential is closed',
    loss: 'they are not listed as stuck; attempts at them go on',
  },
  {
    name: 'locks',
    type: 'hash',
    content: 'locks (JSON with an HMAC under the root key)',
    life: 'each until lifted or expired',
    loss: 'new grants are possible again; what was revoked stays revoked',
  },
  {
    name: 'revocation:<id>',
    type: 'hash',
    content: 'a revocation: record (JSON), position, end, progress of its enumeration, what only expires and when',
    life: '40 days',
    loss: 'its progress is unknown; its feed entry works as ever',
  },
  {
    name: 'revocation:<id>:tasks',
    type: 'string',
    content:
      'HyperLogLog of the tasks its enumeration came across, to count each once (beyond some hundreds to within 1 %)',
    life: 'of the enumeration',
    loss: 'its number of tasks begins anew',
  },
  {
    name: 'revocation:<id>:agents',
    type: 'string',
    content: 'HyperLogLog of the agents its enumeration came across, likewise',
    life: 'of the enumeration',
    loss: 'its number of agents begins anew',
  },
  { name: 'revocations', type: 'sorted set', content: 'revocations by time', life: '40 days', loss: 'lists are empty' },
  {
    name: 'bundle:<digest>',
    type: 'hash',
    content: 'files of a bundle (JSON with an HMAC under the root key)',
    life: 'of the 50 latest',
    loss: 'brokers that have not loaded it grant nothing until a bundle is activated',
  },
  { name: 'bundles', type: 'sorted set', content: 'bundle digests by activation', life: 'for ever', loss: 'history' },
  {
    name: 'keyring',
    type: 'hash',
    content: 'signing keys, encrypted under the root key, with a version and an HMAC',
    life: 'for ever',
    loss: 'new keys are made; tokens signed by the old ones are refused',
  },
  {
    name: 'cellkey',
    type: 'string',
    content: 'key of selector hashes, encrypted under the root key; made once',
    life: 'for ever',
    loss: 'selector hashes of live tokens match nothing; the epoch is raised with it',
  },
  {
    name: 'beats',
    type: 'sorted set',
    content: 'brokers by the time of their last beat (Redis clock)',
    life: 'trimmed',
    loss: 'they come back within a second',
  },
  {
    name: 'confirmed',
    type: 'hash',
    content: 'the epoch and the run of the server that each broker has confirmed',
    life: 'trimmed with the beats',
    loss: 'as beats',
  },
  {
    name: 'once:<hash>',
    type: 'string',
    content: 'a proof that was used (DPoP jti)',
    life: 'until the proof ends',
    loss: 'the proof could be used again within its window',
  },
  {
    name: 'idempotency:<hash>',
    type: 'string',
    content: 'a request with an Idempotency-Key: digest of its body, its answer encrypted under the root key',
    life: '24 hours',
    loss: 'a repeated request is done again; the ledger is idempotent by id',
  },
  {
    name: 'request:<hash>',
    type: 'hash',
    content:
      'a request for a secret with an Idempotency-Key: digest of its body, the lease it stands for, whether that one was given up',
    life: '24 hours',
    loss: 'a repeated request does not find the first credential, which lives until it or its task ends; what is not intended yet is refused',
  },
];

const HASHES_MAX = 20_000;

/** The names of one cell's keys. */
export class Keys {
  readonly cell: string;
  readonly #tag: string;
  readonly #hashes = new Bounded<string>(HASHES_MAX);

  constructor(keyPrefix: string, cell: string) {
    this.cell = cell;
    this.#tag = `{${keyPrefix}:${cell}}:`;
  }

  /** What every script is given first: cell, feed, ends of the feed's entries, audit. */
  get line(): string[] {
    return [this.named('cell'), this.named('feed'), this.named('feed:until'), this.named('audit')];
  }

  named(
    name:
      | 'cell'
      | 'feed'
      | 'feed:until'
      | 'feed:readers'
      | 'audit'
      | 'audit:mover'
      | 'due'
      | 'tasks'
      | 'tokens'
      | 'credentials'
      | 'stuck'
      | 'locks'
      | 'revocations'
      | 'bundles'
      | 'keyring'
      | 'cellkey'
      | 'beats'
      | 'confirmed',
  ): string {
    return this.#tag + name;
  }

  /** Stands where a script's key has no meaning for this call. Never written. */
  get none(): string {
    return `${this.#tag}none`;
  }

  task(id: string): string {
    return `${this.#tag}task:${id}`;
  }

  children(taskId: string): string {
    return `${this.#tag}task:${taskId}:children`;
  }

  tokensOf(taskId: string): string {
    return `${this.#tag}task:${taskId}:tokens`;
  }

  credentialsOf(taskId: string): string {
    return `${this.#tag}task:${taskId}:credentials`;
  }

  tree(rootId: string): string {
    return `${this.#tag}tree:${rootId}`;
  }

  treeCredentials(rootId: string): string {
    return `${this.#tag}tree:${rootId}:credentials`;
  }

  openerTasks(opener: string): string {
    return `${this.#tag}opener:${this.#short(opener)}:tasks`;
  }

  agentTasks(agent: string): string {
    return `${this.#tag}agent:${this.#short(agent)}:tasks`;
  }

  agent(agent: string): string {
    return `${this.#tag}agent:${this.#short(agent)}`;
  }

  agentCredentials(agent: string): string {
    return `${this.#tag}agent:${this.#short(agent)}:credentials`;
  }

  ref(opener: string, ref: string): string {
    return `${this.#tag}ref:${this.#short(`${opener}\0${ref}`)}`;
  }

  kept(opener: string): string {
    return `${this.#tag}kept:${this.#short(opener)}`;
  }

  /** Token leases whose ids were made in that second. */
  tokensAt(second: number): string {
    return `${this.#tag}tokens:${second}`;
  }

  profile(hash: string): string {
    return `${this.#tag}profile:${hash}`;
  }

  credential(id: string): string {
    return `${this.#tag}credential:${id}`;
  }

  backendCredentials(backend: string): string {
    return `${this.#tag}backend:${this.#short(backend)}:credentials`;
  }

  reconciled(backend: string): string {
    return `${this.#tag}backend:${this.#short(backend)}:reconciled`;
  }

  revocation(id: string): string {
    return `${this.#tag}revocation:${id}`;
  }

  revokedTasks(id: string): string {
    return `${this.#tag}revocation:${id}:tasks`;
  }

  revokedAgents(id: string): string {
    return `${this.#tag}revocation:${id}:agents`;
  }

  bundle(digest: string): string {
    return `${this.#tag}bundle:${digest}`;
  }

  once(key: string): string {
    return `${this.#tag}once:${this.#short(key)}`;
  }

  idempotency(key: string): string {
    return `${this.#tag}idempotency:${this.#short(key)}`;
  }

  request(key: string): string {
    return `${this.#tag}request:${this.#short(key)}`;
  }

  /** 128 bits of SHA-256: names of users' making never become key names, and all keys have a bounded length. */
  #short(text: string): string {
    let hash = this.#hashes.get(text);
    if (hash === undefined) {
      hash = createHash('sha256').update(text).digest('base64url').slice(0, 22);
      this.#hashes.set(text, hash);
    }
    return hash;
  }
}
