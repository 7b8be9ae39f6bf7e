-- Put before the scripts that change one task.
-- KEYS: 5 the task, 6 due, 7 tree of its root
-- ARGV: 4 its id
local taskKey, dueKey, treeKey, taskId = KEYS[5], KEYS[6], KEYS[7], ARGV[4]
local read = redis.call('HMGET', taskKey, 'state', 'generation', 'deadline', 'opened', 'heartbeat', 'silent', 'onsilence', 'live')
local state, generation, deadline = read[1], read[2], tonumber(read[3] or 0)
local isOver = state and state ~= 'active' and state ~= 'suspended'
local live = tonumber(read[8] or 0)

-- When the task has been silent for so many heartbeats; never for one without a heartbeat.
local function silentAt(times)
  if read[6] == '' then return math.huge end
  return tonumber(read[5] or read[4]) + times * tonumber(read[6])
end

local function watch(state)
  redis.call('ZADD', dueKey, math.min(deadline, silentAt(state == 'suspended' and 3 or 1)), 'watch-task:' .. taskId)
end

-- One feed entry that kills everything given at or below the task so far.
local function cut()
  return cutTask(taskKey, taskId, live)
end

-- The task as it is now, as read-task returns it.
local function look()
  return redis.call('HMGET', taskKey, 'state', 'generation', 'cut', 'heartbeat', 'live', 'ended', 'reason', 'by', 'charter', 'context')
end
