import type { ClientIdentity } from '../../client/mayfly.js';
import { DEV_PEOPLE, openDevTrustDomain } from '../dev/trust-domain.js';
import { UsageError } from './output.js';

const SVID_TTL_SECONDS = 300;

/** A development identity, signed here with the keys of the data folder: `/agent/x` is a workload, `operator-1` a person. */
export async function devIdentity(as: string, dataDir: string): Promise<ClientIdentity> {
  const trustDomain = await openDevTrustDomain(dataDir);
  if (as.startsWith('/')) {
    return { bearer: async (audience) => trustDomain.jwtSvid({ path: as, audience, ttlSeconds: SVID_TTL_SECONDS }) };
  }
  const person = DEV_PEOPLE.find((one) => one.subject === as);
  if (!person) {
    const names = DEV_PEOPLE.map((one) => one.subject).join(', ');
    throw new UsageError(`--as: a path such as /agent/refunds, or one of ${names}.`);
  }
  return {
    person: async (audience) =>
      trustDomain.personToken({
        subject: person.subject,
        groups: person.groups,
        audience,
        ttlSeconds: SVID_TTL_SECONDS,
      }),
  };
}
