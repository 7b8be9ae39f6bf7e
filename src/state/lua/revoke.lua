-- Revokes by selector: an entry for each match, the fence, the revocation's record, due for enumeration; with a lock it also forbids new grants.
-- KEYS: 5 the revocation, 6 revocations, 7 locks, 8 due
-- ARGV: 4 id, 5 record, 6 latest end of anything the entries can kill (ms), 7 lock id ('' for none), 8 lock, 9 when (ms), 10 life of the record (ms),
--       11… matches; none: an entry that kills nothing moves the fence
-- Returns: {'applied' | 'already', position}.
local there = redis.call('HGET', KEYS[5], 'position')
if there then return { 'already', there } end
local at
for index = 11, math.max(#ARGV, 11) do at = append(ARGV[index] or '{"none":true}', ARGV[6], true) end
if ARGV[7] ~= '' then
  redis.call('HSET', KEYS[7], ARGV[7], ARGV[8])
  redis.call('HINCRBY', cellKey, 'locks', 1)
end
redis.call('HSET', KEYS[5], 'record', ARGV[5], 'position', at, 'until', ARGV[6], 'cursor', '')
redis.call('PEXPIRE', KEYS[5], ARGV[10])
redis.call('ZADD', KEYS[6], ARGV[9], ARGV[4])
redis.call('ZREMRANGEBYSCORE', KEYS[6], '-inf', now - ARGV[10])
redis.call('ZADD', KEYS[8], afterMessenger(), 'run-revocation:' .. ARGV[4])
record(ARGV[3])
return { 'applied', at }
