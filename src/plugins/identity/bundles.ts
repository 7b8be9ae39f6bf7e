import type { Clock } from '../../core/time.js';
import type { BundleContent } from './bundle-document.js';
import { factsOf } from './certificate-facts.js';
import type { IdentityEvent, TrustBundle, TrustBundles } from './contract.js';
import type { BundleSource, SetTimer } from './sources/source.js';
import { x509KeyId } from './x509-svid.js';

export interface FollowedSource {
  /** Trust domain, or OIDC issuer. */
  name: string;
  source: BundleSource;
}

export interface FollowDeps {
  clock: Clock;
  observe?: ((event: IdentityEvent) => void) | undefined;
  setTimer: SetTimer;
}

/** A source that does not answer at all holds up the start no longer than this. */
const FIRST_LOOK_MS_MAX = 5_000;

interface Followed {
  source: BundleSource;
  bundle?: TrustBundle;
  /** Key id to what the key is, so that another key under an old id is noticed. */
  keys: Map<string, string>;
  problem?: string;
}

/** TrustBundles, and a look at every source right now, for who cannot wait for the next one. */
export interface FollowedBundles extends TrustBundles {
  refresh(): Promise<void>;
}

/**
 * Starts to follow every source and resolves when each has been looked at once, successfully or not, or after 5 s: a source that
 * is down keeps nobody from starting, its domain is `unavailable` until it answers.
 */
export async function followBundles(sources: FollowedSource[], deps: FollowDeps): Promise<FollowedBundles> {
  const all = new Map<string, Followed>();
  const gone: ((keyIds: string[]) => void)[] = [];
  const back: ((keyIds: string[]) => void)[] = [];

  const take = (name: string, followed: Followed, content: BundleContent) => {
    const before = followed.bundle;
    if (before?.sequence !== undefined && content.sequence !== undefined && content.sequence < before.sequence) {
      fail(name, followed, `the sequence went back from ${before.sequence} to ${content.sequence}`);
      return;
    }
    delete followed.problem;
    const nowMs = deps.clock.now();
    const keys = keysOf(name, content);
    if (before && sameKeys(followed.keys, keys) && sameAuthorities(before, content)) {
      before.fetchedAtMs = nowMs;
      if (content.sequence !== undefined) before.sequence = content.sequence;
      return;
    }
    const { ignored, ...held } = content;
    followed.bundle = { trustDomain: name, ...held, fetchedAtMs: nowMs };
    const left = [...followed.keys].filter(([id, key]) => keys.get(id) !== key).map(([id]) => id);
    const came = [...keys].filter(([id, key]) => followed.keys.get(id) !== key).map(([id]) => id);
    followed.keys = keys;
    const { sequence } = content;
    deps.observe?.({ type: 'bundle_changed', name, keys: keys.size, ...(sequence === undefined ? {} : { sequence }) });
    for (const problem of ignored) deps.observe?.({ type: 'bundle_entry_ignored', name, problem });
    if (!before) return;
    if (left.length > 0) for (const listener of gone) listener(left);
    if (came.length > 0) for (const listener of back) listener(came);
  };

  const fail = (name: string, followed: Followed, problem: string) => {
    // A source that stays down is tried for ever; it is news once.
    if (followed.problem === problem) return;
    followed.problem = problem;
    deps.observe?.({ type: 'bundle_failed', name, problem });
  };

  for (const { name, source } of sources) all.set(name, { source, keys: new Map() });
  const looks = [...all].map(([name, followed]) =>
    followed.source.start({
      deliver: (content) => take(name, followed, content),
      fail: (problem) => fail(name, followed, problem),
    }),
  );
  await firstLooks(looks, deps.setTimer);

  return {
    get: (name) => all.get(name)?.bundle,
    status: () =>
      [...all].map(([name, { source, bundle, keys, problem }]) => ({
        name,
        source: source.description,
        ok: bundle !== undefined && problem === undefined,
        keys: keys.size,
        ...(bundle ? { fetchedAtMs: bundle.fetchedAtMs } : {}),
        ...(problem === undefined ? {} : { problem }),
      })),
    keyIds: () => [...all.values()].flatMap(({ keys }) => [...keys.keys()]),
    onKeysGone: (listener) => void gone.push(listener),
    onKeysBack: (listener) => void back.push(listener),
    async refresh() {
      await Promise.all([...all.values()].map(({ source }) => source.refresh()));
    },
    async close() {
      await Promise.all([...all.values()].map(({ source }) => source.close()));
    },
  };
}

async function firstLooks(looks: Promise<void>[], setTimer: SetTimer): Promise<void> {
  let cancel = () => {};
  const tooLong = new Promise<void>((resolve) => {
    cancel = setTimer(resolve, FIRST_LOOK_MS_MAX);
  });
  await Promise.race([Promise.all(looks), tooLong]);
  cancel();
}

/** Every key id of the content, with what identifies the key itself. An X.509 id already is a hash of its key. */
function keysOf(name: string, content: BundleContent): Map<string, string> {
  const keys = new Map<string, string>();
  for (const [kid, { thumbprint }] of content.jwtKeys) keys.set(`${name}#${kid}`, thumbprint);
  for (const authority of content.x509Authorities) {
    const id = x509KeyId(name, factsOf(authority));
    keys.set(id, id);
  }
  return keys;
}

function sameKeys(one: Map<string, string>, other: Map<string, string>): boolean {
  return one.size === other.size && [...one].every(([id, key]) => other.get(id) === key);
}

/** A CA certificate issued anew for the same key changes dates and names, so the bundle is another one although no key moved. */
function sameAuthorities(before: TrustBundle, content: BundleContent): boolean {
  const prints = (bundle: Pick<BundleContent, 'x509Authorities'>) =>
    bundle.x509Authorities
      .map((one) => one.fingerprint256)
      .sort()
      .join();
  return prints(before) === prints(content);
}
