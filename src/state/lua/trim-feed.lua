-- Drops a page of entries that can kill nothing any more.
-- ARGV: 4 page
-- Returns: {dropped, entries left that end}.
local ids = redis.call('ZRANGE', untilKey, '-inf', ARGV[1], 'BYSCORE', 'LIMIT', 0, ARGV[4])
if #ids > 0 then
  redis.call('XDEL', feedKey, unpack(ids))
  redis.call('ZREM', untilKey, unpack(ids))
end
return { #ids, redis.call('ZCARD', untilKey) }
