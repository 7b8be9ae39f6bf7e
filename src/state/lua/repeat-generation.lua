-- Repeats, in a new epoch, a suspension, resumption or context change that the store forgot. What it still knows is left alone.
-- KEYS, ARGV 4: as tasks.lua
-- ARGV: 5 generation that was acknowledged, 6 state ('' to leave it), 7 context, 8 '1': everything given before is dead, 9 the cut that was known ('' for none)
-- Returns: {'repeated' | 'known'}.
if not state or isOver or tonumber(generation) >= tonumber(ARGV[5]) then return { 'known' } end
if ARGV[6] ~= '' then state = ARGV[6] end
redis.call('HSET', taskKey, 'state', state, 'generation', ARGV[5], 'context', ARGV[7])
-- The copy that was remembered knows of cuts that came before it, whoever made them.
local isCut = ARGV[8] == '1' or (ARGV[9] ~= '' and ARGV[9] ~= redis.call('HGET', taskKey, 'cut'))
if isCut then cut() end
-- What a cut killed is drained, whatever state the task is in now.
if isCut or state == 'suspended' then redis.call('ZADD', dueKey, ARGV[1], 'drain-task:' .. taskId) end
if state ~= 'suspended' then redis.call('ZADD', dueKey, ARGV[1], 're-evaluate-task:' .. taskId) end
watch(state)
record(ARGV[3])
return { 'repeated' }
