-- Ends the tasks of a list whose deadline has passed; each of them as end-task does.
-- KEYS: 5 due, then two per task: itself, the tree of its root
-- ARGV: 4 reason, 5 by, then two per task: its id, the audit record of its end
-- Returns: for each task 'ended', 'over' (also one that is not there) or 'not_due'.
local outcomes, ended = {}, {}
for at = 1, (#ARGV - 5) / 2 do
  local taskKey, treeKey, id, json = KEYS[4 + 2 * at], KEYS[5 + 2 * at], ARGV[4 + 2 * at], ARGV[5 + 2 * at]
  local read = redis.call('HMGET', taskKey, 'state', 'deadline', 'live')
  local state = read[1]
  if state ~= 'active' and state ~= 'suspended' then
    redis.call('ZREM', KEYS[5], 'watch-task:' .. id)
    outcomes[at] = 'over'
  elseif tonumber(read[2]) > now then
    outcomes[at] = 'not_due'
  else
    finishTask(taskKey, treeKey, id, tonumber(read[3] or 0), 'expired', ARGV[4], ARGV[5], json)
    outcomes[at] = 'ended'
    ended[#ended + 1] = id
  end
end
handOver(KEYS[5], ended)
return outcomes
