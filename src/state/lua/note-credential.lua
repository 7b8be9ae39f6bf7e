-- Adds to a credential's handle what became known while it is made. One that is being revoked meanwhile keeps it too, and is due at once: its
-- revocation needs it.
-- KEYS: 5 the credential, 6 due
-- ARGV: 4 member of due, then fields and values
-- Returns: {'noted' | 'not_live' | 'not_found'}.
local state = redis.call('HGET', KEYS[5], 'state')
if not state then return { 'not_found' } end
if state ~= 'pending' and state ~= 'revoking' then return { 'not_live' } end
if #ARGV > 4 then
  local fields = {}
  for at = 5, #ARGV do fields[#fields + 1] = ARGV[at] end
  redis.call('HSET', KEYS[5], unpack(fields))
end
if state == 'pending' then return { 'noted' } end
redis.call('ZADD', KEYS[6], ARGV[1], ARGV[4])
return { 'not_live' }
