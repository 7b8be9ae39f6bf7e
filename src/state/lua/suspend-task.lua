-- All that was given dies as at an end, the generation rises, and the task can go on later.
-- KEYS, ARGV 4: as tasks.lua
-- ARGV: 5 only if ('' or 'silence')
-- Returns: {'suspended' | 'already' | 'over', task, position or ''}, {'not_found'} or {'not_due'}. Errors: CLOSED.
if not state then return { 'not_found' } end
if isOver then return { 'over', look(), '' } end
if state == 'suspended' then return { 'already', look(), '' } end
-- What raises a generation waits while an epoch is not confirmed: what was acknowledged before and is repeated then is known by its generation.
if known[6] then return redis.error_reply('CLOSED ' .. known[6]) end
if ARGV[5] == 'silence' and silentAt(1) > now then
  watch(state)
  return { 'not_due' }
end

redis.call('HSET', taskKey, 'state', 'suspended', 'generation', generation + 1)
local at = cut()
redis.call('ZADD', dueKey, afterMessenger(), 'drain-task:' .. taskId)
watch('suspended')
record(ARGV[3])
return { 'suspended', look(), at }
