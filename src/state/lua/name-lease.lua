-- Says which lease a request's key stands for. An intent that comes with a key opens only while the key names its lease (commit-credential), and
-- whoever asks with that key again ends that first.
-- KEYS: 5 the key
-- ARGV: 4 digest of the body, 5 lease, 6 the given-up lease in whose place it comes ('' for none), 7 life (ms)
-- Returns: {'named'}, {'other_body'}, {'given_up', lease} or {'taken'}.
local there = redis.call('HMGET', KEYS[5], 'body', 'lease', 'given_up')
local named, isGivenUp = there[2], there[3] == '1'
if there[1] and there[1] ~= ARGV[4] then return { 'other_body' } end
if named == ARGV[5] then return { isGivenUp and 'taken' or 'named' } end
if named and ARGV[6] == '' then
  redis.call('HSET', KEYS[5], 'given_up', '1')
  return { 'given_up', named }
end
if (named or '') ~= ARGV[6] or (named and not isGivenUp) then return { 'taken' } end
redis.call('HSET', KEYS[5], 'body', ARGV[4], 'lease', ARGV[5], 'given_up', '0')
redis.call('PEXPIRE', KEYS[5], ARGV[7])
return { 'named' }
