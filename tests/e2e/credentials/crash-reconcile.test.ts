import { atReconcile, atEndFaults as fault, type Point } from './points.js';
import { Scene } from './scene.js';
import { sweep } from './sweep.js';

const points: Point[] = [
  atReconcile('Redis is killed', ['before', 'ledger.note'], 'orphan', fault.away('redis')),
  atReconcile('PostgreSQL is stopped', ['before', 'backend.find'], 'orphan', fault.away('postgres')),
  atReconcile('PostgreSQL is stopped', ['before', 'backend.revoke'], 'orphan', fault.away('postgres')),
  atReconcile('no answer in time', ['before', 'backend.revoke'], 'orphan', fault.unanswered('postgres', 'silent')),
  atReconcile('the reply is lost', ['before', 'ledger.revokeLeases'], 'lost', fault.unanswered('redis', 'swallow')),
  atReconcile('the broker is killed', ['before', 'ledger.revokeLeases'], 'lost', fault.killed, 2),
  atReconcile('the broker is killed', ['after', 'ledger.revokeLeases'], 'lost', fault.killed, 2),
  atReconcile('the broker is killed', ['before', 'backend.find'], 'orphan', fault.killed, 2),
  atReconcile('the broker is killed', ['after', 'backend.find'], 'orphan', fault.killed, 2),
  atReconcile('the broker is killed', ['before', 'ledger.note'], 'orphan', fault.killed, 2),
  atReconcile('the broker is killed', ['after', 'backend.revoke'], 'orphan', fault.killed, 2),
  // The last one: nobody hurries the reconciler after it, and its orphan waits for the turn of whoever died to be over.
  atReconcile('the broker is killed', ['before', 'backend.revoke'], 'orphan', fault.killed, 2),
];

describe('crash sweep of reconciliation on PostgreSQL: what exists is what the leases say', () => {
  sweep(points, () => Scene.open());
});
