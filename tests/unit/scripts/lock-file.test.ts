import { readFileSync } from 'node:fs';
import { join } from 'node:path';

interface LockedPackage {
  version?: string;
  optional?: boolean;
  os?: string[];
  cpu?: string[];
  dependencies?: Record<string, string>;
  optionalDependencies?: Record<string, string>;
}

const lock = readFileSync(join(import.meta.dirname, '../../../package-lock.json'), 'utf8');
const { packages } = JSON.parse(lock) as { packages: Record<string, LockedPackage> };

/** Looks for a package as Node does: beside the one that wants it, then further and further up. */
function isLocked(wanted: string, from: string): boolean {
  for (let place = from; ; place = place.slice(0, Math.max(0, place.lastIndexOf('/node_modules/')))) {
    if (packages[`${place}${place && '/'}node_modules/${wanted}`]) return true;
    if (place === '') return false;
  }
}

it('names every package for every platform, so that `npm ci` works on all of them', () => {
  const missing = Object.entries(packages).flatMap(([place, { dependencies, optionalDependencies }]) =>
    Object.keys({ ...dependencies, ...optionalDependencies })
      .filter((name) => !isLocked(name, place))
      .map((name) => `${name} (for ${place})`),
  );
  expect(missing).toEqual([]);
});

it('says of a package without a hash for which platforms it is, so that it is skipped elsewhere', () => {
  for (const [place, entry] of Object.entries(packages)) {
    if (place === '' || 'integrity' in entry) continue;
    expect([place, entry.optional, entry.os?.length, entry.cpu?.length]).toEqual([place, true, 1, 1]);
  }
});

it('names no place that packages come from: that is for whoever installs', () => {
  expect(lock).not.toContain('"resolved"');
});
