-- Makes a bundle the active one: an entry that kills nothing moves the fence, so that nothing decided under the old one is committed.
-- KEYS: 5 the bundle, 6 bundles, 7 due
-- ARGV: 4 digest, 5 files, 6 '1': also one that was active before, 7 end of the entry (ms)
-- Returns: {'activated', position, digest, which activation it is}, {'already' | 'seen', '', the active digest, ''}.
if bundle == ARGV[4] then return { 'already', '', bundle, '' } end
local isSeen = redis.call('ZSCORE', KEYS[6], ARGV[4])
if isSeen and ARGV[6] ~= '1' then return { 'seen', '', bundle, '' } end
redis.call('HSET', KEYS[5], 'files', ARGV[5], 'at', ARGV[1])
redis.call('ZADD', KEYS[6], ARGV[1], ARGV[4])
redis.call('HSET', cellKey, 'bundle', ARGV[4])
redis.call('ZREM', KEYS[7], 're-evaluate-bundle:' .. bundle)
redis.call('ZADD', KEYS[7], afterMessenger(), 're-evaluate-bundle:' .. ARGV[4])
local at = append('{"none":true}', ARGV[7], true)
record(ARGV[3])
return { 'activated', at, ARGV[4], redis.call('HINCRBY', cellKey, 'activations', 1) }
