-- One kind of work on a task is done: no longer due, unless the task changed since the state and generation it was begun in.
-- KEYS, ARGV 4: as tasks.lua
-- ARGV: 5 work, 6 state, 7 generation, 8 when it was due as it was begun ('' where that is all the same)
-- Returns: {'settled' | 'stale' | 'not_found'}.
if not state then return { 'not_found' } end
if state ~= ARGV[6] or generation ~= ARGV[7] then return { 'stale' } end
local member = ARGV[5] .. ':' .. taskId
local dueAt = ARGV[8] ~= '' and redis.call('ZSCORE', dueKey, member)
if dueAt and tonumber(dueAt) ~= tonumber(ARGV[8]) then return { 'stale' } end
local wasDue = redis.call('ZREM', dueKey, member) == 1
if ARGV[5] == 're-evaluate-task' then redis.call('HDEL', taskKey, 'judge') end
-- Messengers come late and twice: who settles what somebody else has settled did nothing, and no record says it again.
if wasDue then record(ARGV[3]) end
return { 'settled' }
