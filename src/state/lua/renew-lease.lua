-- Longer life for an active credential. Its position stays, so that it cannot slip past a revocation that is not enumerated yet.
-- KEYS: 5 the credential, 6 due, then n tasks root first, then the second of each of m leases above
-- ARGV: 4 id, 5 end (ms), 6 position, 7 bundle, 8 n, 9 m, 10 generations, 11 member of due, then per task id and generation, then per lease above id and field
-- Returns: {'committed'} or a refusal {outcome, by}. Errors: CLOSED.
local id = ARGV[4]
local there = redis.call('HMGET', KEYS[5], 'state', 'expires', 'position')
if not there[1] then return { 'not_found', id } end
if known[6] then return redis.error_reply('CLOSED ' .. known[6]) end
if there[1] ~= 'active' or tonumber(there[2]) <= now then return { 'not_live', id } end

local taskCount, aboveCount = tonumber(ARGV[8]), tonumber(ARGV[9])
local tasks, above = {}, {}
for at = 1, taskCount do
  tasks[at] = { key = KEYS[6 + at], id = ARGV[10 + 2 * at], generation = ARGV[11 + 2 * at] }
end
for at = 1, aboveCount do
  local first = 10 + 2 * taskCount + 2 * at
  above[at] = { key = KEYS[6 + taskCount + at], id = ARGV[first], field = ARGV[first + 1] }
end
local refusal, found = refusePath(tasks, above, ARGV[6], ARGV[7], true)
if refusal then return refusal end
for at = 1, taskCount do
  local cut = found[at][5]
  if cut and isBefore(there[3], cut) then return { 'not_live', id } end
end

redis.call('HSET', KEYS[5], 'expires', ARGV[5], 'generations', ARGV[10], 'bundle', ARGV[7])
redis.call('ZADD', KEYS[6], ARGV[5], ARGV[11])
record(ARGV[3])
return { 'committed' }
