-- Writes a credential's intent (pending, due at its deadline), or makes a pending one active before its deadline.
-- KEYS: 5 the credential, 6 due, 7 credentials, 8 agent, 9 credentials of the agent, 10 tokens of the task, 11 tokens of the root, 12 tree,
--       13 credentials of the tree, 14 credentials of the task, 15 agent's tasks (or none),
--       16 credentials of its backend, 17 the key of its request (or none), then n tasks root first, then the second of each of m leases above
-- ARGV: 4 'intent' or 'commit', 5 id, 6 task id, 7 deadline of the intent (ms, '' at commit), 8 end of the credential (ms), 9 position, 10 bundle, 11 n, 12 m,
--       13 leases per task, 14 leases per agent, 15 per tree, 16 slot of now, 17 member of due, then per task id and generation, then per lease above id and field,
--       then fields and values of the record
-- Returns: {'committed'} or a refusal {outcome, by}: not_live also when the key of its request does not name it any more (name-lease). Errors: CLOSED.
local isIntent, id = ARGV[4] == 'intent', ARGV[5]
local there = redis.call('HMGET', KEYS[5], 'state', 'deadline')
if isIntent and there[1] == 'pending' then return { 'committed' } end
if not isIntent and there[1] == 'active' then return { 'committed' } end
if there[1] and (isIntent or there[1] ~= 'pending') then return { 'not_live', id } end
if isIntent and not isNone(KEYS[17]) then
  local key = redis.call('HMGET', KEYS[17], 'lease', 'given_up')
  if key[1] ~= id or key[2] ~= '0' then return { 'not_live', id } end
end
if known[6] then return redis.error_reply('CLOSED ' .. known[6]) end

local taskCount, aboveCount = tonumber(ARGV[11]), tonumber(ARGV[12])
local tasks, above = {}, {}
for at = 1, taskCount do
  tasks[at] = { key = KEYS[17 + at], id = ARGV[16 + 2 * at], generation = ARGV[17 + 2 * at] }
end
for at = 1, aboveCount do
  local first = 16 + 2 * taskCount + 2 * at
  above[at] = { key = KEYS[17 + taskCount + at], id = ARGV[first], field = ARGV[first + 1] }
end
local refusal, found, leases = refusePath(tasks, above, ARGV[9], ARGV[10])
if refusal then return refusal end

-- One that is there already is counted already.
local own = there[1] and 1 or 0
local inTask = countLive(KEYS[10], 0, 0) + redis.call('ZCARD', KEYS[14]) - own
if inTask >= tonumber(ARGV[13]) then return { 'quota', 'task' } end
local agentCount = countAgent(KEYS[8], tonumber(ARGV[16]), 'n') + redis.call('ZCARD', KEYS[9]) - own
if agentCount >= tonumber(ARGV[14]) then return { 'quota', 'agent' } end
local rootTokens, below, inTree = redis.call('ZCARD', KEYS[11]), redis.call('ZCARD', KEYS[12]), redis.call('ZCARD', KEYS[13])
if not hasRoomInTree(KEYS[11], rootTokens, KEYS[12], below, inTree, tonumber(ARGV[15]) + own) then return { 'quota', 'tree' } end
if not isIntent then
  if not there[1] then return { 'not_found', id } end
  if now >= tonumber(there[2]) then return { 'too_late', id } end
end

-- Nothing below can refuse any more.
local fields = {}
for at = 18 + 2 * taskCount + 2 * aboveCount, #ARGV do fields[#fields + 1] = ARGV[at] end
redis.call('HSET', KEYS[5], unpack(fields))
if isIntent then
  redis.call('HSET', KEYS[5], 'deadline', ARGV[7])
  redis.call('ZADD', KEYS[6], ARGV[7], ARGV[17])
  redis.call('ZADD', KEYS[7], 0, id)
  redis.call('ZADD', KEYS[9], 0, id)
  redis.call('ZADD', KEYS[13], 0, id)
  redis.call('ZADD', KEYS[14], 0, id)
  redis.call('ZADD', KEYS[16], 1, id)
  if not isNone(KEYS[15]) then redis.call('ZADD', KEYS[15], 'NX', ARGV[1], ARGV[6]) end
else
  -- Whoever has the deadline was never committed.
  redis.call('HDEL', KEYS[5], 'deadline')
  redis.call('ZADD', KEYS[6], ARGV[8], ARGV[17])
  redis.call('ZADD', KEYS[16], 2, id)
end
for at = 1, aboveCount do
  if string.sub(leases[at], 2, 2) ~= 'p' then
    redis.call('HSET', above[at].key, above[at].field, 'ap' .. string.sub(leases[at], 3))
  end
end
record(ARGV[3])
return { 'committed' }
