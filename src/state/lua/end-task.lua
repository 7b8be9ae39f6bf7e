-- Ends a task for good: constant cost, whatever hangs below. The first terminal state wins.
-- KEYS, ARGV 4: as tasks.lua
-- ARGV: 5 state, 6 reason, 7 by, 8 only if ('', 'deadline', 'silence')
-- Returns: {'ended' | 'already', task, position or ''}, {'not_found'} or {'not_due'}.
if not state then return { 'not_found' } end
if isOver then return { 'already', look(), '' } end
local onlyIf = ARGV[8]
if (onlyIf == 'deadline' and deadline > now) or (onlyIf == 'silence' and silentAt(read[7] == 'end' and 1 or 3) > now) then
  watch(state)
  return { 'not_due' }
end

handOver(dueKey, { taskId })
local at = finishTask(taskKey, treeKey, taskId, live, ARGV[5], ARGV[6], ARGV[7], ARGV[3])
return { 'ended', look(), at }
