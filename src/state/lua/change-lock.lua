-- Changes or removes a lock by compare-and-set.
-- KEYS: 5 locks
-- ARGV: 4 lock id, 5 the lock as read, 6 the lock as it shall be ('' to remove it)
-- Returns: {'changed' | 'moved_on'}.
if redis.call('HGET', KEYS[5], ARGV[4]) ~= ARGV[5] then return { 'moved_on' } end
if ARGV[6] == '' then
  redis.call('HDEL', KEYS[5], ARGV[4])
else
  redis.call('HSET', KEYS[5], ARGV[4], ARGV[6])
end
redis.call('HINCRBY', cellKey, 'locks', 1)
record(ARGV[3])
return { 'changed' }
