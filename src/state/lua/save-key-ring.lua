-- Stores the key ring by compare-and-set on its version. A tainted key gets an entry for ever.
-- KEYS: 5 key ring
-- ARGV: 4 ring, 5 version it was made from, 6 match of the tainted key ('' for none), 7 version it shall have
-- Returns: {'saved' | 'moved_on', version}.
local version = tonumber(redis.call('HGET', KEYS[5], 'version') or 0)
if version ~= tonumber(ARGV[5]) then return { 'moved_on', version } end
redis.call('HSET', KEYS[5], 'ring', ARGV[4], 'version', ARGV[7])
if ARGV[6] ~= '' then append(ARGV[6], '-', true) end
record(ARGV[3])
return { 'saved', tonumber(ARGV[7]) }
