-- Put before tasks.lua and the scripts that end tasks: what an end does, whoever asks for it.
local skewMs = 60000

-- One feed entry that kills everything given at or below the task so far.
local function cutTask(key, id, live)
  local at = append('{"task":"' .. id .. '"}', math.max(live, now) + skewMs)
  redis.call('HSET', key, 'cut', at)
  return at
end

-- What is due about tasks that have ended is their drain. A few commands for all of them: ids are as many as an unpack takes.
local function handOver(dueKey, ids)
  local watched, drains = {}, {}
  for at = 1, #ids do
    watched[2 * at - 1], watched[2 * at] = 'watch-task:' .. ids[at], 're-evaluate-task:' .. ids[at]
    drains[2 * at - 1], drains[2 * at] = afterMessenger(), 'drain-task:' .. ids[at]
  end
  if #ids > 0 then
    redis.call('ZREM', dueKey, unpack(watched))
    redis.call('ZADD', dueKey, unpack(drains))
  end
end

-- Without its due work, which `handOver` does. Returns the position of its entry, '' when nothing given below it can be alive.
local function finishTask(key, treeKey, id, live, state, reason, by, json)
  redis.call('HSET', key, 'state', state, 'ended', ARGV[1], 'reason', reason, 'by', by)
  local at = ''
  if live + skewMs > now then at = cutTask(key, id, live) end
  redis.call('ZREM', treeKey, id)
  record(json)
  return at
end
