-- Opens a task.
-- KEYS: 5 the task, 6 due, 7 tasks, 8 reference (or none), 9 ends kept for the opener, 10 opener's tasks, 11 children of the parent (or none),
--       12 tokens of the root, 13 tree, 14 credentials of the tree, then n ancestors root first, then the tasks of each of m agents
-- ARGV: 4 id, 5 charter, 6 context, 7 deadline (ms), 8 path, 9 path of the parent ('' for a root), 10 heartbeat (ms, '' for none), 11 on silence,
--       12 position, 13 bundle, 14 n, 15 m, 16 per tree, 17 life of the record (ms), 18 reference ('' for none), 19 opened (ms),
--       20 life of lists (ms), then per ancestor id and generation
-- Returns: {'opened', state, generation, live, ended or '', reason, by}, {'exists', id} or a refusal {outcome, by}. Errors: CLOSED.
local id, ref = ARGV[4], ARGV[18]
if redis.call('EXISTS', KEYS[5]) == 1 then return { 'exists', id } end
if ref ~= '' then
  local there = redis.call('GET', KEYS[8])
  if there then return { 'exists', there } end
end
if known[6] then return redis.error_reply('CLOSED ' .. known[6]) end

local ancestors = {}
local count, agents = tonumber(ARGV[14]), tonumber(ARGV[15])
for at = 1, count do
  ancestors[at] = { key = KEYS[14 + at], id = ARGV[19 + 2 * at], generation = ARGV[20 + 2 * at] }
end
local refusal, found = refusePath(ancestors, {}, ARGV[12], ARGV[13])
if refusal then return refusal end
if count > 0 then
  if found[count][6] ~= ARGV[9] then return { 'not_found', ancestors[count].id } end
  local rootTokens, below, inTree = redis.call('ZCARD', KEYS[12]), redis.call('ZCARD', KEYS[13]), redis.call('ZCARD', KEYS[14])
  if not hasRoomInTree(KEYS[12], rootTokens, KEYS[13], below, inTree, tonumber(ARGV[16])) then return { 'quota', 'tree' } end
end
local kept
if ref ~= '' then
  local value = redis.call('HGET', KEYS[9], ref)
  if value then
    local untilMs, state, by, reason = string.match(value, '^(%d+)|(%a+)|([^|]*)|(.*)$')
    if tonumber(untilMs) > now then kept = { state, by, reason } end
  end
end

-- Nothing below can refuse any more.
local deadline, heartbeat = tonumber(ARGV[7]), ARGV[10]
redis.call('HSET', KEYS[5], 'charter', ARGV[5], 'context', ARGV[6], 'path', ARGV[8], 'deadline', ARGV[7], 'state', kept and kept[1] or 'active',
  'generation', 1, 'live', 0, 'opened', ARGV[19], 'silent', heartbeat, 'onsilence', ARGV[11])
redis.call('PEXPIRE', KEYS[5], ARGV[17])
redis.call('ZADD', KEYS[7], ARGV[19], id)
redis.call('ZREMRANGEBYSCORE', KEYS[7], '-inf', now - ARGV[20])
redis.call('ZADD', KEYS[10], ARGV[19], id)
redis.call('PEXPIRE', KEYS[10], ARGV[20])
for at = 1, agents do
  local key = KEYS[14 + count + at]
  redis.call('ZADD', key, 'NX', ARGV[19], id)
  redis.call('PEXPIRE', key, ARGV[20])
end
if ref ~= '' then
  redis.call('SET', KEYS[8], id, 'PX', ARGV[17])
  redis.call('HDEL', KEYS[9], ref)
end
if count > 0 then
  redis.call('ZADD', KEYS[11], ARGV[19], id)
  redis.call('PEXPIRE', KEYS[11], ARGV[17])
  if not kept then
    redis.call('ZADD', KEYS[13], deadline, id)
    redis.call('PEXPIRE', KEYS[13], math.max(tonumber(found[1][3]) - now, 0) + 120000)
  end
end
if kept then
  redis.call('HSET', KEYS[5], 'ended', now, 'reason', kept[3], 'by', kept[2])
  redis.call('ZADD', KEYS[6], now, 'drain-task:' .. id)
  record(ARGV[3])
  return { 'opened', kept[1], '1', '0', ARGV[1], kept[3], kept[2] }
end
local watch = deadline
if heartbeat ~= '' then watch = math.min(watch, tonumber(ARGV[19]) + tonumber(heartbeat)) end
redis.call('ZADD', KEYS[6], watch, 'watch-task:' .. id)
record(ARGV[3])
return { 'opened', 'active', '1', '0', '', '', '' }
