-- Everything a decision hangs on, in one look.
-- KEYS: 5 locks, then n tasks root first, then for each of m leases: its second, its credential
-- ARGV: 4 n, 5 m, 6 version of the locks that the caller has ('' for none), then per task the generation whose charter and context the
--       caller has ('' for none), then per lease its field
-- Returns: {epoch, head, fence, bundle, locks' version, locks or false, {task…}, {lease…}}; a task or lease that is not there is false.
--   task: {state, generation, cut, heartbeat, live, ended, reason, by, charter or false, context or false}
--   lease: {'token', value} or {'credential', field, value…}
local taskCount, leaseCount = tonumber(ARGV[4]), tonumber(ARGV[5])
local tasks, leases = {}, {}
for at = 1, taskCount do
  local key = KEYS[5 + at]
  local task = redis.call('HMGET', key, 'state', 'generation', 'cut', 'heartbeat', 'live', 'ended', 'reason', 'by')
  if not task[1] then
    tasks[at] = false
  else
    local has = ARGV[6 + at]
    task[9] = has == '' and redis.call('HGET', key, 'charter')
    task[10] = has ~= task[2] and redis.call('HGET', key, 'context')
    tasks[at] = task
  end
end
for at = 1, leaseCount do
  local value = redis.call('HGET', KEYS[5 + taskCount + 2 * at - 1], ARGV[6 + taskCount + at])
  if value then
    leases[at] = { 'token', value }
  else
    local fields = redis.call('HGETALL', KEYS[5 + taskCount + 2 * at])
    if #fields > 0 then
      table.insert(fields, 1, 'credential')
      leases[at] = fields
    else
      leases[at] = false
    end
  end
end
local version = known[7] or '0'
local locks = false
if version ~= ARGV[6] then locks = redis.call('HVALS', KEYS[5]) end
return { epoch, head, fence, bundle, version, locks, tasks, leases }
