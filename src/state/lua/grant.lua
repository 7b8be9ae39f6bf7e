-- Put before the scripts that grant: what must hold for anything new below a path of tasks and leases.
-- tasks: list of {key, id, generation}; above: list of {key, field, id} of token leases; basis: position and bundle as read. What merely expired
-- above, and may be forgotten by now, is no obstacle for longer life of what was given below it.
-- Returns a refusal, or nothing and what was read of the tasks (state, generation, deadline, live).
local function refusePath(tasks, above, basisPosition, basisBundle, mayHaveExpired)
  local found = {}
  for at = 1, #tasks do
    local fields = redis.call('HMGET', tasks[at].key, 'state', 'generation', 'deadline', 'live', 'cut', 'path')
    if not fields[1] then return { 'not_found', tasks[at].id } end
    found[at] = fields
  end
  local leases = {}
  for at = 1, #above do
    local value = redis.call('HGET', above[at].key, above[at].field)
    if not value and not mayHaveExpired then return { 'not_found', above[at].id } end
    leases[at] = value or 'a-0'
  end
  for at = 1, #tasks do
    local state = found[at][1]
    if state ~= 'active' and state ~= 'suspended' then return { 'over', tasks[at].id } end
    if tonumber(found[at][3]) <= now then return { 'over', tasks[at].id } end
    if state == 'suspended' then return { 'suspended', tasks[at].id } end
  end
  for at = 1, #above do
    if string.sub(leases[at], 1, 1) ~= 'a' then return { 'not_live', above[at].id } end
    if not mayHaveExpired and tonumber(string.match(leases[at], '^..(%d+)')) <= now then return { 'parent_expired', above[at].id } end
  end
  if string.match(basisPosition, '^(%d+)-') ~= epoch then return { 'stale', 'epoch' } end
  if basisBundle ~= bundle then return { 'stale', 'bundle' } end
  if isBefore(basisPosition, fence) then return { 'stale', 'fence' } end
  for at = 1, #tasks do
    if tasks[at].generation ~= found[at][2] then return { 'stale', 'generation' } end
  end
  return nil, found, leases
end

-- How many members of a sorted set end after now. Those that ended may still be there: they are told apart only when they would matter.
local function countLive(key, size, room)
  if size < room then return size end
  return redis.call('ZCOUNT', key, '(' .. ARGV[1], '+inf')
end

-- Whether a tree has room for one more: the root itself, token leases of the root, tasks and token leases below it, credentials.
local function hasRoomInTree(rootTokensKey, rootTokens, treeKey, below, credentials, quota)
  if 1 + rootTokens + below + credentials < quota then return true end
  return 1 + countLive(rootTokensKey, rootTokens, 0) + countLive(treeKey, below, 0) + credentials < quota
end

-- How many live token leases an agent has, by slots of expiry: the slots that have passed are taken off.
-- Returns the count, the passed slots that are to be removed when something is written, how many are in the slot of the end, and
-- whether the slot of now is another than it was.
local function countAgent(key, slotNow, slotOfEnd)
  local fields = redis.call('HMGET', key, 'n', 'at', slotOfEnd)
  local count, at = tonumber(fields[1] or 0), tonumber(fields[2] or 0)
  local stale = {}
  if fields[2] and at < slotNow then
    local all = redis.call('HGETALL', key)
    for index = 1, #all, 2 do
      local slot = tonumber(all[index])
      if slot and slot < slotNow then
        count = count - tonumber(all[index + 1])
        stale[#stale + 1] = all[index]
      end
    end
  end
  return math.max(count, 0), stale, tonumber(fields[3] or 0), at < slotNow
end

-- One more that ends in that slot. The key outlives every lease that can end in the slots it was last touched in.
local function addToAgent(key, count, stale, inSlot, isNewSlot, slotNow, slotOfEnd, lifeMs)
  if #stale > 0 then redis.call('HDEL', key, unpack(stale)) end
  if isNewSlot then
    redis.call('HSET', key, slotOfEnd, inSlot + 1, 'n', count + 1, 'at', slotNow)
    redis.call('PEXPIRE', key, lifeMs)
  else
    redis.call('HSET', key, slotOfEnd, inSlot + 1, 'n', count + 1)
  end
end
