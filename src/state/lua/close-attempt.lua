-- One attempt at revoking a credential is over. Fenced by the attempt the worker began with.
-- KEYS: 5 the credential, 6 due, 7 credentials, 8 credentials of its agent, 9 of its tree, 10 of its task
-- ARGV: 4 id, 5 attempt, 6 'revoked', 'revoking' or 'abandoned', 7 problem or reason, 8 next attempt (ms, '' for none), 9 life of a closed record (ms)
-- Returns: {'closed' | 'fenced' | 'not_found'}.
local id, result = ARGV[4], ARGV[6]
local fields = redis.call('HMGET', KEYS[5], 'state', 'attempts')
if not fields[1] then return { 'not_found' } end
if fields[1] ~= 'revoking' or (fields[2] or '0') ~= ARGV[5] then return { 'fenced' } end
redis.call('HSET', KEYS[5], 'attempts', ARGV[5] + 1)
if result == 'revoking' then
  redis.call('HSET', KEYS[5], 'problem', ARGV[7], 'next', ARGV[8])
  redis.call('ZADD', KEYS[6], ARGV[8], 'retire-credential:' .. id)
else
  redis.call('HSET', KEYS[5], 'state', result, 'revoked', ARGV[1])
  if ARGV[7] ~= '' then redis.call('HSET', KEYS[5], 'reason', ARGV[7]) end
  redis.call('HDEL', KEYS[5], 'next')
  redis.call('ZREM', KEYS[6], 'retire-credential:' .. id, 'close-intent:' .. id)
  for at = 7, 10 do
    if not isNone(KEYS[at]) then redis.call('ZREM', KEYS[at], id) end
  end
  redis.call('PEXPIRE', KEYS[5], ARGV[9])
end
record(ARGV[3])
return { 'closed' }
