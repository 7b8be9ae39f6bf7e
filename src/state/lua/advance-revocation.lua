-- Progress of a revocation's enumeration, by compare-and-set on its cursor.
-- KEYS: 5 the revocation, 6 due
-- ARGV: 4 id, 5 cursor it was at, 6 cursor, 7 found (JSON), 8 '1': done
-- Returns: {'advanced' | 'moved_on' | 'not_found'}.
local fields = redis.call('HMGET', KEYS[5], 'position', 'cursor', 'done')
if not fields[1] then return { 'not_found' } end
if fields[3] or fields[2] ~= ARGV[5] then return { 'moved_on' } end
redis.call('HSET', KEYS[5], 'cursor', ARGV[6], 'found', ARGV[7])
if ARGV[8] == '1' then
  redis.call('HSET', KEYS[5], 'done', '1', 'finished', ARGV[1])
  redis.call('ZREM', KEYS[6], 'run-revocation:' .. ARGV[4])
end
record(ARGV[3])
return { 'advanced' }
