import type { AuditRecord } from '../core/audit.js';

export type Acknowledged = {
  kind: 'bundle';
  atMs: number;
  digest: string;
  files: Record<string, string>;
  audit: AuditRecord;
};

export class Memory {
  remember(_one: Acknowledged): void {}
}
