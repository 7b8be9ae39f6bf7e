import { atEnd, atEndFaults as fault, type Point } from './points.js';
import { Scene } from './scene.js';
import { sweep } from './sweep.js';

const STEPS: ['before' | 'after', string][] = (
  [
    'ledger.endTask',
    'ledger.revokeLeases',
    'ledger.settleTask',
    'ledger.beginAttempt',
    'backend.revoke',
    'backend.confirm',
    'backend.probe',
    'ledger.closeAttempt',
  ] as const
).flatMap((call): ['before' | 'after', string][] => [
  ['before', call],
  ['after', call],
]);

const ending: Point[] = [
  ...STEPS.map((step) => atEnd('the broker is killed', step, fault.killed, 2)),
  ...STEPS.filter(([when, call]) => when === 'before' && call !== 'backend.confirm').map((step) =>
    atEnd('Redis is killed', step, fault.away('redis')),
  ),
  ...(['backend.revoke', 'backend.confirm', 'backend.probe'] as const).map((call) =>
    atEnd('PostgreSQL is stopped', ['before', call], fault.away('postgres')),
  ),
  atEnd('PostgreSQL is stopped', ['after', 'backend.revoke'], fault.away('postgres')),
  atEnd('the worker is stopped until another has done it', ['before', 'backend.revoke'], fault.stopped, 2),
  atEnd('the worker is stopped until another has done it', ['after', 'backend.revoke'], fault.stopped, 2),
  atEnd('the worker is stopped until another has done it', ['before', 'ledger.closeAttempt'], fault.stopped, 2),
  atEnd('the reply is lost', ['before', 'ledger.endTask'], fault.unanswered('redis', 'swallow')),
  atEnd('the reply is lost', ['before', 'ledger.revokeLeases'], fault.unanswered('redis', 'swallow')),
  atEnd('the reply is lost', ['before', 'ledger.beginAttempt'], fault.unanswered('redis', 'swallow')),
  atEnd('the reply is lost', ['before', 'backend.revoke'], fault.unanswered('postgres', 'swallow')),
  atEnd('the reply is lost', ['before', 'ledger.closeAttempt'], fault.unanswered('redis', 'swallow')),
  atEnd('no answer in time', ['before', 'ledger.endTask'], fault.unanswered('redis', 'silent')),
  atEnd('no answer in time', ['before', 'backend.revoke'], fault.unanswered('postgres', 'silent')),
  atEnd('no answer in time', ['before', 'backend.confirm'], fault.unanswered('postgres', 'silent')),
];

describe('crash sweep of end and revocation on PostgreSQL: what exists is what the leases say', () => {
  sweep(ending, () => Scene.open());
});
