-- A broker is alive, knows this epoch, and has seen the line so far.
-- KEYS: 5 beats, 6 confirmed
-- ARGV: 4 broker, 5 beat id, 6 epoch and run id the broker confirms, `<epoch>:<run>` ('' for none), 7 last write it has seen ('' for none), 8 epoch it knows,
--       9.. brokers whose place it has taken: a restarted process remembers what its predecessor acknowledged, so nobody waits for that one
-- Returns: {'beaten', epoch, head, last write, clock (ms), closed or '', run id}; {'newer', epoch, run id} when the epoch was raised since: nothing is written;
--          {'forgot'} when the store does not hold what was seen.
if tonumber(epoch) > tonumber(ARGV[8]) then return { 'newer', epoch, known[5] } end
if tonumber(epoch) < tonumber(ARGV[8]) then return { 'forgot' } end
local info = redis.call('EXISTS', auditKey) == 1 and redis.call('XINFO', 'STREAM', auditKey) or {}
local last = '0-0'
for at = 1, #info, 2 do
  if info[at] == 'last-generated-id' then last = info[at + 1] end
end
local seen = ARGV[7]
if seen ~= '' and seen ~= last then
  local trimmed = redis.call('HGET', cellKey, 'trimmed')
  local held = redis.call('XRANGE', auditKey, seen, seen)
  if #held == 0 and not (trimmed and not isBefore('0-' .. trimmed, '0-' .. seen)) then return { 'forgot' } end
end
local atMs = clockMs()
redis.call('HSET', cellKey, 'beat', ARGV[5], 'beatat', atMs)
redis.call('ZADD', KEYS[5], atMs, ARGV[4])
if ARGV[6] ~= '' then
  redis.call('HSET', KEYS[6], ARGV[4], ARGV[6])
  for at = 9, #ARGV do
    redis.call('ZREM', KEYS[5], ARGV[at])
    redis.call('HDEL', KEYS[6], ARGV[at])
  end
end
local closed = known[6] or ''
if closed ~= '' then
  local waiting = false
  local brokers = redis.call('ZRANGE', KEYS[5], atMs - 10000, '+inf', 'BYSCORE')
  for at = 1, #brokers do
    if redis.call('HGET', KEYS[6], brokers[at]) ~= epoch .. ':' .. known[5] then waiting = true end
  end
  if not waiting then
    redis.call('HDEL', cellKey, 'closed')
    closed = ''
  end
end
local gone = redis.call('ZRANGE', KEYS[5], '-inf', atMs - 60000, 'BYSCORE')
for at = 1, #gone do
  redis.call('ZREM', KEYS[5], gone[at])
  redis.call('HDEL', KEYS[6], gone[at])
end
return { 'beaten', epoch, head, last, string.format('%.0f', atMs), closed, known[5] }
