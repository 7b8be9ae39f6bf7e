import { atIssue, away, killed, meanwhile, type Point, stoppedPastDeadline, unanswered } from './points.js';
import { Scene } from './scene.js';
import { sweep } from './sweep.js';

/** Each answer: where the broker has to log in anew there are some nine, and all of them have to fit into the time of an issue. */
const LATER_MS = 100;

const endedMeanwhile = meanwhile((scene, task) => scene.endTask(task));
const suspendedMeanwhile = meanwhile((scene, task) => scene.act(task, 'suspend', 'POST', {}));
const contextMeanwhile = meanwhile((scene, task) => scene.act(task, 'context', 'PATCH', { context: { risk: 'high' } }));

const issuing: Point[] = [
  atIssue('the broker is killed', ['before', 'ledger.openIntent'], 'none', killed),
  atIssue('the broker is killed', ['after', 'ledger.openIntent'], 'revoked', killed),
  atIssue('the broker is killed', ['before', 'backend.issue'], 'revoked', killed),
  atIssue('the broker is killed', ['after', 'backend.issue'], 'revoked', killed),
  atIssue('the broker is killed', ['before', 'ledger.commitLease'], 'revoked', killed),
  atIssue('the broker is killed', ['after', 'ledger.commitLease'], 'active', killed),
  atIssue('Redis is killed', ['before', 'ledger.openIntent'], 'none', away('redis')),
  atIssue('Redis is killed', ['before', 'backend.issue'], 'revoked', away('redis')),
  atIssue('Redis is killed', ['before', 'ledger.commitLease'], 'revoked', away('redis')),
  atIssue('Redis is killed', ['after', 'ledger.commitLease'], 'active', away('redis')),
  atIssue('PostgreSQL is stopped', ['before', 'backend.issue'], 'revoked', away('postgres')),
  atIssue('PostgreSQL is stopped', ['after', 'backend.issue'], 'active', away('postgres')),
  atIssue('the issuer is stopped past its deadline', ['before', 'backend.issue'], 'revoked', stoppedPastDeadline),
  atIssue('the issuer is stopped past its deadline', ['after', 'backend.issue'], 'revoked', stoppedPastDeadline),
  atIssue('the issuer is stopped past its deadline', ['before', 'ledger.commitLease'], 'revoked', stoppedPastDeadline),
  atIssue('the reply is lost', ['before', 'ledger.openIntent'], 'revoked', unanswered('redis', 'swallow')),
  atIssue('the reply is lost', ['before', 'backend.issue'], 'revoked', unanswered('postgres', 'swallow')),
  atIssue('the reply is lost', ['before', 'ledger.commitLease'], 'revoked', unanswered('redis', 'swallow')),
  atIssue('no answer in time', ['before', 'ledger.openIntent'], 'none', unanswered('redis', 'silent')),
  atIssue('no answer in time', ['before', 'backend.issue'], 'revoked', unanswered('postgres', 'silent')),
  atIssue('no answer in time', ['before', 'ledger.commitLease'], 'revoked', unanswered('redis', 'silent')),
  atIssue(
    'the answer comes late',
    ['before', 'backend.issue'],
    'active',
    unanswered('postgres', { delayMs: LATER_MS }),
  ),
  atIssue('the task ended', ['before', 'ledger.openIntent'], 'none', endedMeanwhile),
  atIssue('the task ended', ['before', 'backend.issue'], 'revoked', endedMeanwhile),
  atIssue('the task ended', ['before', 'ledger.commitLease'], 'revoked', endedMeanwhile),
  atIssue('the task was suspended', ['before', 'ledger.commitLease'], 'revoked', suspendedMeanwhile),
  atIssue('the context forbids it now', ['before', 'ledger.commitLease'], 'revoked', contextMeanwhile),
];

describe('crash sweep of issue on PostgreSQL: what exists is what the leases say', () => {
  sweep(issuing, () => Scene.open());
});
