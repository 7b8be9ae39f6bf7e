-- Ends the tasks of a list whose deadline has passed; each of them as end-task does.
-- KEYS: 5 due, then two per task: itself, the tree of its root
-- ARGV: 4 reason, 5 by, then two per task: its id, the audit record of its end
-- Returns: for each task 'ended', 'over' (also one that is not there) or 'not_due'.
local outcomes, lives, over, ended = {}, {}, {}, {}
for at = 1, (#ARGV - 5) / 2 do
  local id = ARGV[4 + 2 * at]
  local read = redis.call('HMGET', KEYS[4 + 2 * at], 'state', 'deadline', 'live')
  local state = read[1]
  if state ~= 'active' and state ~= 'suspended' then
    outcomes[at] = 'over'
    over[#over + 1] = 'watch-task:' .. id
  elseif (tonumber(read[2]) or 0) > now then
    outcomes[at] = 'not_due'
  else
    outcomes[at] = 'ended'
    lives[at] = tonumber(read[3]) or 0
    ended[#ended + 1] = id
  end
end

-- Their drains are due before the first of them is over, whatever a record that is not as it should be makes of this.
if #over > 0 then redis.call('ZREM', KEYS[5], unpack(over)) end
handOver(KEYS[5], ended)
for at = 1, #outcomes do
  if lives[at] then
    local taskKey, treeKey, id, json = KEYS[4 + 2 * at], KEYS[5 + 2 * at], ARGV[4 + 2 * at], ARGV[5 + 2 * at]
    finishTask(taskKey, treeKey, id, lives[at], 'expired', ARGV[4], ARGV[5], json)
  end
end
return outcomes
