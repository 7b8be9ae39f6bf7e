import type { SecretData } from '../../src/core/credential.js';
import { systemClock } from '../../src/core/time.js';
import { FakeBackend } from '../fakes/backend.js';
import { keepsItsPromises } from './backends/cases.js';
import type { World } from './backends/harness.js';

/** What stands in for a backend in the fast tests keeps the same promises as the real ones: else these would prove nothing. */
keepsItsPromises('fake', {
  promises: ['instant'],
  abilities: ['renew', 'find', 'probe'],
  canHang: false,
  async open(): Promise<World> {
    const backend = new FakeBackend(systemClock);
    return {
      backend,
      another: () => backend,
      stranger: () => new FakeBackend(systemClock),
      secrets: [{ name: 'a-user', settings: {}, promised: 'instant', secretFields: ['password'] }],
      badSettings: {
        'no text': { role: 7 },
        nothing: { role: null },
        'a list': { role: ['readers'] },
        'a setting that there is not': { group: 'readers' },
      },
      works: async (data: SecretData) => backend.accepts(data),
      count: async () => backend.live().length,
      async down() {
        backend.down = 'unreachable';
      },
      async up() {
        backend.down = undefined;
      },
      ours: [],
      async close() {},
    };
  },
});
