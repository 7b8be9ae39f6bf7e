import { stricterSensitivity } from '../../../src/core/sensitivity.js';

describe('the sensitivity that policy sees', () => {
  it('is the stricter of what the resource declares and what the task says', () => {
    expect(stricterSensitivity('internal', undefined)).toBe('internal');
    expect(stricterSensitivity('internal', 'public')).toBe('internal');
    expect(stricterSensitivity('internal', 'confidential')).toBe('confidential');
  });

  it.each(['RESTRICTED', ' restricted', 'secret', '', null, 3, ['public']])(
    'is the strictest where a task says %j',
    (said) => {
      expect(stricterSensitivity('public', said)).toBe('restricted');
    },
  );
});
