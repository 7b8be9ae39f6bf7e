-- Raises the epoch: every token of earlier epochs is dead. The one script that runs on a master the cell does not know.
-- KEYS: 5 beats, 6 confirmed
-- ARGV: 4 run id that the caller saw in the cell ('' for none), 5 run id that the caller saw at the server,
--       6 epoch to go beyond, 7 latest end of any token (ms), 8 '1': adopt the new process without raising (nothing can have been lost), 9 epoch that the caller saw in the cell ('' for none)
-- Returns: {'raised' | 'adopted' | 'moved_on', epoch, head}. Errors: LATE.
if isLate() then return redis.error_reply('LATE the deadline has passed') end
local run = ownRun()
if run ~= ARGV[5] then return { 'moved_on', epoch or '0', head or '0-0' } end
if (known[5] or '') ~= ARGV[4] or (epoch or '') ~= ARGV[9] then return { 'moved_on', epoch or '0', head or '0-0' } end
-- Those that beat in the last ten seconds of the store's memory have ten more to appear and to confirm.
local function awaitEverybody(atMs)
  local beats = redis.call('ZRANGE', KEYS[5], 0, -1, 'WITHSCORES')
  if #beats > 0 then
    local last = tonumber(beats[#beats])
    for at = 1, #beats, 2 do
      if tonumber(beats[at + 1]) >= last - 10000 then
        redis.call('ZADD', KEYS[5], atMs, beats[at])
      else
        redis.call('ZREM', KEYS[5], beats[at])
      end
    end
  end
end

if ARGV[8] == '1' and epoch then
  -- Nothing can have been lost in a restart, but a store put back from seconds ago looks the same: each broker first repeats what it
  -- acknowledged, and grants wait for all of them.
  awaitEverybody(clockMs())
  redis.call('HSET', cellKey, 'run', run, 'closed', 'the restarted store is not confirmed by every broker yet')
  return { 'adopted', epoch, head }
end

-- A restored store has an old epoch: the Unix second is beyond everything it can have handed out.
local atMs = clockMs()
epoch = string.format('%.0f', math.max(tonumber(epoch or 0) + 1, tonumber(ARGV[6]) + 1, math.floor(atMs / 1000)))
bundle = bundle or ''
awaitEverybody(atMs)
redis.call('HSET', cellKey, 'epoch', epoch, 'run', run, 'bundle', bundle, 'closed', 'a new epoch is not confirmed by every broker yet')
append('{"all":true}', ARGV[7], true)
record(ARGV[3])
return { 'raised', epoch, head }
