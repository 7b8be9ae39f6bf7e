-- An agent of the task is alive: moves the time of its silence. No record, and nothing for a task that is not active.
-- KEYS, ARGV 4: as tasks.lua
-- Returns: {'noted', task} or {'not_found'}.
if not state then return { 'not_found' } end
if state == 'active' and tonumber(read[5] or 0) < now then
  redis.call('HSET', taskKey, 'heartbeat', ARGV[1])
  read[5] = ARGV[1]
  watch(state)
end
return { 'noted', look() }
