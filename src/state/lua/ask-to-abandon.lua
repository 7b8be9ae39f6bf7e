-- A person asks to give up on a credential that is being revoked; a second one within the window may do it.
-- KEYS: 5 the credential
-- ARGV: 4 who, 5 window (ms)
-- Returns: {'requested' | 'second' | 'not_live' | 'not_found'}.
local fields = redis.call('HMGET', KEYS[5], 'state', 'residue', 'abandonby', 'abandonat')
if not fields[1] then return { 'not_found' } end
if fields[1] ~= 'revoking' and not (fields[1] == 'revoked' and fields[2]) then return { 'not_live' } end
local isAsked = fields[4] and now - tonumber(fields[4]) < tonumber(ARGV[5])
if isAsked and fields[3] ~= ARGV[4] then return { 'second' } end
if not isAsked then
  redis.call('HSET', KEYS[5], 'abandonby', ARGV[4], 'abandonat', ARGV[1])
  record(ARGV[3])
end
return { 'requested' }
