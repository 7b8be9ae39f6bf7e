-- Keeps an end for a reference that its opener has not opened yet.
-- KEYS: 5 ends kept for the opener, 6 the reference
-- ARGV: 4 reference, 5 '<until>|<state>|<by>|<reason>', 6 most ends kept per opener, 7 life of the key (ms)
-- Returns: {'kept' | 'full'}.
local there = redis.call('HGET', KEYS[5], ARGV[4])
if there and tonumber(string.match(there, '^%d+')) > now then return { 'kept' } end
if redis.call('HLEN', KEYS[5]) >= tonumber(ARGV[6]) then
  -- All of them are looked at once, and then not before the first of them is over: no reference has no characters.
  local firstAt = redis.call('HGET', KEYS[5], '')
  if firstAt and tonumber(firstAt) > now then return { 'full' } end
  local all = redis.call('HGETALL', KEYS[5])
  local first, left = nil, 0
  for at = 1, #all, 2 do
    local untilMs = tonumber(string.match(all[at + 1], '^%d+'))
    if all[at] ~= '' then
      if untilMs <= now then
        redis.call('HDEL', KEYS[5], all[at])
      else
        left, first = left + 1, math.min(first or untilMs, untilMs)
      end
    end
  end
  redis.call('HDEL', KEYS[5], '')
  if left >= tonumber(ARGV[6]) then
    redis.call('HSET', KEYS[5], '', string.format('%.0f', first))
    return { 'full' }
  end
end
redis.call('HSET', KEYS[5], ARGV[4], ARGV[5])
redis.call('PEXPIRE', KEYS[5], ARGV[7])
record(ARGV[3])
return { 'kept' }
