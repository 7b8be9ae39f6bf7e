-- Put before every script.
-- KEYS: 1 cell, 2 feed, 3 ends of the feed's entries, 4 audit
-- ARGV: 1 now (ms, the broker's clock), 2 deadline (ms, Redis' clock, 13 digits), then, when the caller's connection is known to lead to one
--       process, ':' and its run id, 3 audit record (JSON, '' for none)
-- Before it: MESSENGER_MS (due.ts)
local cellKey, feedKey, untilKey, auditKey = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local now = tonumber(ARGV[1])

-- Whether a key stands for nothing in this call.
local function isNone(key)
  return string.sub(key, -5) == ':none'
end

-- When the sweeper comes for what a messenger (a job) was sent for as well: by then that has had its time.
local function afterMessenger()
  return now + MESSENGER_MS
end

local function clockMs()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function isLate()
  return clockMs() > tonumber(string.sub(ARGV[2], 1, 13))
end

-- Costs more than all the rest of a short script.
local function ownRun()
  return string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
end

local known = redis.call('HMGET', cellKey, 'epoch', 'head', 'fence', 'bundle', 'run', 'closed', 'locks')
local epoch, head, fence, bundle = known[1], known[2], known[3], known[4]

local function position()
  return epoch .. '-' .. head
end

-- Whether position a comes before b; compared as integers.
local function isBefore(a, b)
  local ae, am, as = string.match(a, '^(%d+)-(%d+)-(%d+)$')
  local be, bm, bs = string.match(b, '^(%d+)-(%d+)-(%d+)$')
  if ae ~= be then return tonumber(ae) < tonumber(be) end
  if am ~= bm then return tonumber(am) < tonumber(bm) end
  return tonumber(as) < tonumber(bs)
end

-- Appends a feed entry, moves the head, and with `fenced` the fence. Returns its position.
local function append(match, untilMs, fenced)
  head = redis.call('XADD', feedKey, '*', 'e', epoch, 'u', untilMs, 'm', match)
  if untilMs ~= '-' then redis.call('ZADD', untilKey, untilMs, head) end
  if fenced then
    fence = position()
    redis.call('HSET', cellKey, 'head', head, 'fence', fence)
  else
    redis.call('HSET', cellKey, 'head', head)
  end
  return position()
end

-- Writes the audit record of this change. Last, so that it carries the position after it.
local function record(json)
  if json ~= '' then redis.call('XADD', auditKey, '*', 'r', json, 'p', position()) end
end
