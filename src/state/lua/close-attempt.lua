-- One attempt at revoking a credential is over. Fenced by the number of the attempt.
-- KEYS: 5 the credential, 6 due, 7 credentials, 8 credentials of its agent, 9 of its tree, 10 of its task, 11 of its backend, 12 stuck
-- ARGV: 4 id, 5 attempt, 6 'revoked', 'revoking' or 'abandoned', 7 problem, 8 next attempt (ms, '' for none), 9 life of a closed record (ms), 10 member of due,
--       11 evidence ('' for none), 12 residue ('' for none), 13 failed attempts that make it stuck
-- Returns: {'closed' | 'fenced' | 'not_found'}.
local id, result, residue = ARGV[4], ARGV[6], ARGV[12]
local fields = redis.call('HMGET', KEYS[5], 'state', 'attempts', 'residue')
local state, attempts = fields[1], fields[2] or '0'
if not state then return { 'not_found' } end
if state ~= 'revoking' and not (state == 'revoked' and fields[3]) then return { 'fenced' } end
if attempts ~= ARGV[5] then return { 'fenced' } end
redis.call('HDEL', KEYS[5], 'claim')
if ARGV[7] ~= '' then redis.call('HSET', KEYS[5], 'problem', ARGV[7]) end
if result == 'revoking' then
  redis.call('HSET', KEYS[5], 'next', ARGV[8])
  if ARGV[11] ~= '' then redis.call('HSET', KEYS[5], 'evidence', ARGV[11]) end
  redis.call('ZADD', KEYS[6], ARGV[8], ARGV[10])
  -- An attempt without a problem only waits.
  if ARGV[7] ~= '' and redis.call('HINCRBY', KEYS[5], 'failures', 1) >= tonumber(ARGV[13]) then
    redis.call('HSET', KEYS[5], 'stuck', '1')
    if state == 'revoking' then redis.call('ZADD', KEYS[11], 4, id) end
    redis.call('ZADD', KEYS[12], 0, id)
  end
  record(ARGV[3])
  return { 'closed' }
end

-- Nobody can use it any more, or nobody tries any more: what was kept to try it with goes, and quotas are free.
if state == 'revoking' then redis.call('HSET', KEYS[5], 'state', result, 'revoked', ARGV[1]) end
if ARGV[11] ~= '' and state == 'revoking' then redis.call('HSET', KEYS[5], 'evidence', ARGV[11]) end
redis.call('HDEL', KEYS[5], 'next', 'probe', 'kept', 'residue', 'stuck')
for at = 8, 10 do
  if not isNone(KEYS[at]) then redis.call('ZREM', KEYS[at], id) end
end
if residue ~= '' then
  redis.call('HSET', KEYS[5], 'residue', residue, 'next', ARGV[8], 'stuck', '1')
  redis.call('ZADD', KEYS[6], ARGV[8], ARGV[10])
  redis.call('ZADD', KEYS[11], 5, id)
  redis.call('ZADD', KEYS[12], 0, id)
else
  redis.call('ZREM', KEYS[6], ARGV[10])
  redis.call('ZREM', KEYS[7], id)
  redis.call('ZREM', KEYS[11], id)
  redis.call('ZREM', KEYS[12], id)
  redis.call('PEXPIRE', KEYS[5], ARGV[9])
end
record(ARGV[3])
return { 'closed' }
