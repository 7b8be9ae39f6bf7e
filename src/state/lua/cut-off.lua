-- Too many entries: everything older than a place is dead from now on, which is what the entries up to there said and more; then they go, page by page.
-- ARGV: 4 stream id of the place, 5 epoch of that entry, 6 end of the cut-off (ms, '' when it is written already), 7 from (stream id), 8 page
-- Returns: {entries looked at, stream id of the last, position or ''}. Entries for ever stay.
local at = ''
if ARGV[6] ~= '' then
  head = redis.call('XADD', feedKey, '*', 'e', epoch, 'u', ARGV[6], 'm', '{"all":true}', 'b', ARGV[5] .. '-' .. ARGV[4])
  redis.call('ZADD', untilKey, ARGV[6], head)
  at = position()
  redis.call('HSET', cellKey, 'head', head, 'fence', at)
  record(ARGV[3])
end
local entries = redis.call('XRANGE', feedKey, ARGV[7], ARGV[4], 'COUNT', ARGV[8])
local gone = {}
for index = 1, #entries do
  local fields = entries[index][2]
  if fields[4] ~= '-' then gone[#gone + 1] = entries[index][1] end
end
if #gone > 0 then
  redis.call('XDEL', feedKey, unpack(gone))
  redis.call('ZREM', untilKey, unpack(gone))
end
local last = entries[#entries]
return { #entries, last and last[1] or '', at }
