-- Progress of a revocation's enumeration, by compare-and-set on its cursor. Counts add up; who was hit is counted once, however many pages name it.
-- KEYS: 5 the revocation, 6 due, 7 tasks seen, 8 agents seen
-- ARGV: 4 id, 5 cursor it was at, 6 cursor, 7 '1': done, 8 leases, 9 credentials, 10 life of what was seen (ms), 11 number of tasks, 12 of agents,
--       13 of resources where something only expires, then the tasks, the agents, and per resource its name and the latest end (ms)
-- Returns: {'advanced' | 'moved_on' | 'not_found'}.
local fields = redis.call('HMGET', KEYS[5], 'position', 'cursor', 'done')
if not fields[1] then return { 'not_found' } end
if fields[3] or fields[2] ~= ARGV[5] then return { 'moved_on' } end

local at = 13
local function see(key, name, number)
  if number == 0 then return end
  redis.call('PFADD', key, unpack(ARGV, at + 1, at + number))
  redis.call('PEXPIRE', key, ARGV[10])
  redis.call('HSET', KEYS[5], name, redis.call('PFCOUNT', key))
  at = at + number
end
see(KEYS[7], 'tasks', tonumber(ARGV[11]))
see(KEYS[8], 'agents', tonumber(ARGV[12]))
for index = at + 1, at + 2 * tonumber(ARGV[13]), 2 do
  local name, ends = 'remains:' .. ARGV[index], tonumber(ARGV[index + 1])
  if ends > tonumber(redis.call('HGET', KEYS[5], name) or 0) then redis.call('HSET', KEYS[5], name, ARGV[index + 1]) end
end
redis.call('HINCRBY', KEYS[5], 'leases', ARGV[8])
redis.call('HINCRBY', KEYS[5], 'credentials', ARGV[9])
redis.call('HSET', KEYS[5], 'cursor', ARGV[6])
if ARGV[7] == '1' then
  redis.call('HSET', KEYS[5], 'done', '1', 'finished', ARGV[1])
  redis.call('ZREM', KEYS[6], 'run-revocation:' .. ARGV[4])
  redis.call('DEL', KEYS[7], KEYS[8])
end
record(ARGV[3])
return { 'advanced' }
