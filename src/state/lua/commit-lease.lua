-- Makes a token lease count.
-- KEYS: 5 its second, 6 seconds, 7 profile, 8 agent, 9 agent's tasks (or none), 10 tokens of the task, 11 tokens of the root, 12 tree,
--       13 credentials of the tree, 14 credentials of the agent, 15 credentials of the task, then n tasks root first, then the second of each of m leases above
-- ARGV: 4 field, 5 value, 6 expires (ms), 7 second, 8 life of the record (ms), 9 profile, 10 lease id, 11 task id ('' for none),
--       12 position, 13 bundle, 14 n, 15 m, 16 leases per task, 17 leases per agent, 18 per tree, 19 slot of now, 20 slot of the end,
--       21 longest life of a token and some (ms), then per task id and generation, then per lease above id and field
-- Returns: {'committed'} or a refusal {outcome, by}. Errors: CLASH the id is another lease's; CLOSED.
local field, value = ARGV[4], ARGV[5]
local there = redis.call('HGET', KEYS[5], field)
if there then
  if string.sub(there, 1, 1) ~= 'a' then return { 'not_live', ARGV[10] } end
  if string.sub(there, 3) ~= string.sub(value, 3) then return redis.error_reply('CLASH another lease has this id') end
  return { 'committed' }
end
if known[6] then return redis.error_reply('CLOSED ' .. known[6]) end

local taskId = ARGV[11]
local taskCount, aboveCount = tonumber(ARGV[14]), tonumber(ARGV[15])
local tasks, above = {}, {}
for at = 1, taskCount do
  tasks[at] = { key = KEYS[15 + at], id = ARGV[20 + 2 * at], generation = ARGV[21 + 2 * at] }
end
for at = 1, aboveCount do
  local first = 20 + 2 * taskCount + 2 * at
  above[at] = { key = KEYS[15 + taskCount + at], id = ARGV[first], field = ARGV[first + 1] }
end
local refusal, found, leases = refusePath(tasks, above, ARGV[12], ARGV[13])
if refusal then return refusal end

if taskId ~= '' then
  local inTask = redis.call('ZCOUNT', KEYS[10], '(' .. ARGV[1], '+inf') + redis.call('ZCARD', KEYS[15])
  if inTask >= tonumber(ARGV[16]) then return { 'quota', 'task' } end
end
local agentCount, slot, staleSlots = countAgent(KEYS[8], tonumber(ARGV[19]))
if agentCount + redis.call('ZCARD', KEYS[14]) >= tonumber(ARGV[17]) then return { 'quota', 'agent' } end
if taskId ~= '' and countTree(KEYS[11], KEYS[12], KEYS[13]) >= tonumber(ARGV[18]) then return { 'quota', 'tree' } end

-- Nothing below can refuse any more.
redis.call('HSET', KEYS[5], field, value)
if redis.call('HLEN', KEYS[5]) == 1 then
  redis.call('PEXPIRE', KEYS[5], ARGV[8])
  redis.call('ZADD', KEYS[6], ARGV[7], ARGV[7])
  redis.call('ZREMRANGEBYSCORE', KEYS[6], '-inf', math.floor((now - ARGV[21]) / 1000) - 60)
else
  redis.call('PEXPIRE', KEYS[5], ARGV[8], 'GT')
end
if redis.call('PEXPIRE', KEYS[7], ARGV[8], 'GT') == 0 and redis.call('EXISTS', KEYS[7]) == 0 then
  redis.call('SET', KEYS[7], ARGV[9], 'PX', ARGV[8])
end
addToAgent(KEYS[8], agentCount, slot, staleSlots, ARGV[20], ARGV[21])
if taskId ~= '' then
  redis.call('ZREMRANGEBYSCORE', KEYS[10], '-inf', ARGV[1])
  redis.call('ZADD', KEYS[10], ARGV[6], ARGV[10])
  redis.call('PEXPIRE', KEYS[10], ARGV[21])
  if taskCount > 1 then
    redis.call('ZREMRANGEBYSCORE', KEYS[12], '-inf', ARGV[1])
    redis.call('ZADD', KEYS[12], ARGV[6], ARGV[10])
  end
  if not isNone(KEYS[9]) then redis.call('ZADD', KEYS[9], 'NX', ARGV[1], taskId) end
end
for at = 1, taskCount do
  if tonumber(found[at][4]) < tonumber(ARGV[6]) then redis.call('HSET', tasks[at].key, 'live', ARGV[6]) end
end
for at = 1, aboveCount do
  if string.sub(leases[at], 2, 2) ~= 'p' then
    redis.call('HSET', above[at].key, above[at].field, 'ap' .. string.sub(leases[at], 3))
  end
end
record(ARGV[3])
return { 'committed' }
