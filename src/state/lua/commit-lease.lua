-- Makes a token lease count.
-- KEYS: 5 its second, 6 seconds, 7 profile, 8 agent, 9 agent's tasks (or none), 10 tokens of the task, 11 tokens of the root, 12 tree,
--       13 credentials of the tree, 14 credentials of the agent, 15 credentials of the task, then n tasks root first, then the second of each of m leases above
-- ARGV: 4 field, 5 value, 6 expires (ms), 7 second, 8 life of the record (ms), 9 profile ('' when it is believed to be there), 10 lease id, 11 task id ('' for none),
--       12 position, 13 bundle, 14 n, 15 m, 16 leases per task, 17 leases per agent, 18 per tree, 19 slot of now, 20 slot of the end,
--       21 longest life of a token and some (ms), 22 '1' when the lease ends later than others of its second may, then per task id and generation, then per lease above id and field
-- Returns: {'committed'}, a refusal {outcome, by}, or {'profile'}: the profile is not there, come again with it. Errors: CLASH the id is another lease's; CLOSED.
local field, value = ARGV[4], ARGV[5]
local there = redis.call('HGET', KEYS[5], field)
if there then
  if string.sub(there, 1, 1) ~= 'a' then return { 'not_live', ARGV[10] } end
  if string.sub(there, 3) ~= string.sub(value, 3) then return redis.error_reply('CLASH another lease has this id') end
  return { 'committed' }
end
local taskId = ARGV[11]
-- An operator's token gives nothing away, and is what one asks with why nothing is given.
if known[6] and taskId ~= '' then return redis.error_reply('CLOSED ' .. known[6]) end
local taskCount, aboveCount = tonumber(ARGV[14]), tonumber(ARGV[15])
local tasks, above = {}, {}
for at = 1, taskCount do
  tasks[at] = { key = KEYS[15 + at], id = ARGV[21 + 2 * at], generation = ARGV[22 + 2 * at] }
end
for at = 1, aboveCount do
  local first = 21 + 2 * taskCount + 2 * at
  above[at] = { key = KEYS[15 + taskCount + at], id = ARGV[first], field = ARGV[first + 1] }
end
local refusal, found, leases = refusePath(tasks, above, ARGV[12], ARGV[13])
if refusal then return refusal end

-- Most agents and tasks have no credentials, and most trees are their root alone: then one question tells it of all four.
local isBare = redis.call('EXISTS', KEYS[12], KEYS[13], KEYS[14], KEYS[15]) == 0
local function sizeOf(key)
  return isBare and 0 or redis.call('ZCARD', key)
end
local tokens = 0
if taskId ~= '' then
  tokens = redis.call('ZCARD', KEYS[10])
  local credentials, quota = sizeOf(KEYS[15]), tonumber(ARGV[16])
  if countLive(KEYS[10], tokens, quota - credentials) + credentials >= quota then return { 'quota', 'task' } end
end
local slotNow, slotOfEnd = tonumber(ARGV[19]), ARGV[20]
local agentCount, staleSlots, inSlot, isNewSlot = countAgent(KEYS[8], slotNow, slotOfEnd)
if agentCount + sizeOf(KEYS[14]) >= tonumber(ARGV[17]) then return { 'quota', 'agent' } end
if taskId ~= '' then
  local rootTokens = taskCount == 1 and tokens or redis.call('ZCARD', KEYS[11])
  if not hasRoomInTree(KEYS[11], rootTokens, KEYS[12], sizeOf(KEYS[12]), sizeOf(KEYS[13]), tonumber(ARGV[18])) then return { 'quota', 'tree' } end
end
local life = tonumber(ARGV[8])
local profileLeft = redis.call('PTTL', KEYS[7])
if profileLeft == -2 and ARGV[9] == '' then return { 'profile' } end

-- Nothing below can refuse any more.
redis.call('HSET', KEYS[5], field, value)
if redis.call('HLEN', KEYS[5]) == 1 then
  redis.call('PEXPIRE', KEYS[5], life)
  redis.call('ZADD', KEYS[6], ARGV[7], ARGV[7])
  redis.call('ZREMRANGEBYSCORE', KEYS[6], '-inf', math.floor((now - ARGV[21]) / 1000) - 60)
elseif ARGV[22] == '1' then
  redis.call('PEXPIRE', KEYS[5], life, 'GT')
end
-- Kept for twice as long as one lease needs it, so that it is seldom written.
if profileLeft == -2 then
  redis.call('SET', KEYS[7], ARGV[9], 'PX', 2 * life)
elseif profileLeft < life then
  redis.call('PEXPIRE', KEYS[7], 2 * life)
end
addToAgent(KEYS[8], agentCount, staleSlots, inSlot, isNewSlot, slotNow, slotOfEnd, ARGV[21])
if taskId ~= '' then
  -- What has ended is removed now and then; counting does not need it.
  if tokens % 16 == 15 then redis.call('ZREMRANGEBYSCORE', KEYS[10], '-inf', ARGV[1]) end
  redis.call('ZADD', KEYS[10], ARGV[6], ARGV[10])
  if tokens == 0 then
    local deadline = tonumber(found[taskCount][3])
    redis.call('PEXPIRE', KEYS[10], math.max(deadline, tonumber(ARGV[6])) - now + 120000)
  end
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
