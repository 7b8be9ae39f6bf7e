-- Put before tasks.lua and the scripts that end tasks: what an end does, whoever asks for it.
local skewMs = 60000

-- One feed entry that kills everything given at or below the task so far.
local function cutTask(key, id, live)
  local at = append('{"task":"' .. id .. '"}', math.max(live, now) + skewMs)
  redis.call('HSET', key, 'cut', at)
  return at
end

-- Returns the position of its entry, '' when nothing given below it can be alive.
local function finishTask(key, dueKey, treeKey, id, live, state, reason, by, json)
  redis.call('HSET', key, 'state', state, 'ended', ARGV[1], 'reason', reason, 'by', by)
  local at = ''
  if live + skewMs > now then at = cutTask(key, id, live) end
  redis.call('ZREM', dueKey, 'watch-task:' .. id, 're-evaluate-task:' .. id)
  redis.call('ZADD', dueKey, afterMessenger(), 'drain-task:' .. id)
  redis.call('ZREM', treeKey, id)
  record(json)
  return at
end
