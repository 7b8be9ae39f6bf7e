-- Stores a task's own context by compare-and-set on its generation, raises it, makes the task due for judging (or, when it cuts, for its drain).
-- KEYS, ARGV 4: as tasks.lua
-- ARGV: 5 generation it was made from, 6 context, 7 '1': everything given before is dead, 8 when the judging has to be over (ms)
-- Returns: {'changed' | 'over' | 'generation_mismatch', task, position or ''} or {'not_found'}. Errors: CLOSED.
if not state then return { 'not_found' } end
if isOver then return { 'over', look(), '' } end
-- What raises a generation waits while an epoch is not confirmed: what was acknowledged before and is repeated then is known by its generation.
if known[6] then return redis.error_reply('CLOSED ' .. known[6]) end
if generation ~= ARGV[5] then return { 'generation_mismatch', look(), '' } end

redis.call('HSET', taskKey, 'context', ARGV[6], 'generation', generation + 1)
local at = ''
if ARGV[7] == '1' then
  at = cut()
else
  -- A change that comes while an earlier one is not judged gives nobody more time.
  redis.call('HSETNX', taskKey, 'judge', ARGV[8])
end
redis.call('ZADD', dueKey, afterMessenger(), (ARGV[7] == '1' and 'drain-task:' or 're-evaluate-task:') .. taskId)
record(ARGV[3])
return { 'changed', look(), at }
